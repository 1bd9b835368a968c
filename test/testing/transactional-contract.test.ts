import { describe, expect, it } from 'vitest';
import type { SqliteDatabase } from '../../adapters/stores/sqlite/index.ts';
import type { Answer, Unit } from '../../src/store.ts';
import { runClause, type TransactionalHarness, transactionalClauses } from '../../src/testing/index.ts';
import { drivers, sqliteHarness } from '../adapters/stores/sqlite-harness.ts';

type Harness = TransactionalHarness<SqliteDatabase>;
type Store = Harness['store'];

/** A transactional store that is wrong in one way, and the clause that must notice. */
interface Mutant {
  readonly name: string;
  readonly breaks: string;
  mutate(store: Store, harness: Harness, original: Harness): Partial<Store>;
}

/** Changes what a unit offers. */
const units =
  (change: (unit: Unit<SqliteDatabase>, store: Store) => Partial<Unit<SqliteDatabase>>): Mutant['mutate'] =>
  (store) => ({ unit: (work) => store.unit((unit) => work({ ...unit, ...change(unit, store) })) });

const records = (change: (answer: Answer, index: number) => Answer): Mutant['mutate'] =>
  units((unit) => ({ record: async (asks) => (await unit.record(asks)).map(change) }));

const given: Answer = { state: 'claimed', fence: 99, attempt: 1, orphaned: false };

const mutants: readonly Mutant[] = [
  {
    name: 'resolves before it commits',
    breaks: '20a',
    mutate: (store) => ({
      unit: (work) =>
        new Promise((resolve) => void store.unit(async (unit) => (resolve(await work(unit)), Promise.reject())).catch(() => {})),
    }),
  },
  {
    name: 'commits what has failed',
    breaks: '20b',
    mutate: (store) => ({
      async unit(work) {
        const outcome = await store.unit(async (unit) =>
          work(unit).then(
            (value) => ({ value }),
            (error: unknown) => ({ error }),
          ),
        );
        if ('error' in outcome) throw outcome.error;
        return outcome.value;
      },
    }),
  },
  {
    name: 'wraps the error of work',
    breaks: '20b',
    mutate: (store) => ({ unit: (work) => store.unit(work).catch((cause) => Promise.reject(new Error('transaction failed', { cause }))) }),
  },
  {
    name: 'has no savepoints',
    breaks: '20c',
    mutate: units((unit) => ({
      async savepoint(run) {
        const outcome = await unit.savepoint(async (tx) =>
          run(tx).then(
            (value) => ({ value }),
            (error: unknown) => ({ error }),
          ),
        );
        if ('error' in outcome) throw outcome.error;
        return outcome.value;
      },
    })),
  },
  { name: 'ignores settle in a unit', breaks: '20d', mutate: units(() => ({ settle: async (ends) => ends.map(() => 'ok') })) },
  { name: 'takes a running claim away', breaks: '20e', mutate: records((answer) => (answer.state === 'busy' ? given : answer)) },
  {
    name: 'ignores mismatches',
    breaks: '20e',
    mutate: units((unit) => ({ record: (asks) => unit.record(asks.map((ask) => ({ ...ask, fingerprint: '' }))) })),
  },
  {
    name: 'answers a key as completed whose handler has not run yet',
    breaks: '20f',
    mutate: records((answer) => (answer.state === 'busy' && answer.remainingMs === 0 ? { state: 'completed', ageMs: 0 } : answer)),
  },
  {
    name: 'forgets the attempt of a claim that becomes the record',
    breaks: '20g',
    mutate: records((answer) => (answer.state === 'claimed' ? { ...answer, attempt: 1 } : answer)),
  },
  {
    name: 'gives up at the third failure of a unit',
    breaks: '20h',
    mutate(store) {
      return {
        unit: (work) =>
          store.unit((unit) => {
            let failures = 0;
            return work({
              ...unit,
              savepoint: (run) =>
                failures > 2
                  ? Promise.reject(new Error('broken'))
                  : unit.savepoint(run).catch((error) => (failures++, Promise.reject(error))),
            });
          }),
      };
    },
  },
  {
    name: 'never expires what units record',
    breaks: '20i',
    mutate: units((unit) => ({ record: (asks) => unit.record(asks.map((ask) => ({ ...ask, retainMs: 1e12 }))) })),
  },
  {
    name: 'does not know its own claims among others',
    breaks: '20j',
    mutate: units((unit) => ({
      record: (asks) => unit.record(asks.length > 1 ? asks.map((ask) => ({ ...ask, token: `${ask.token}!` })) : asks),
    })),
  },
  {
    name: 'takes a failed commit for done',
    breaks: '21a',
    mutate: (store) => ({ unit: (work) => store.unit(work).catch(() => undefined as never) }),
  },
  {
    name: 'takes a lost reply for a failed commit',
    breaks: '21b',
    mutate: (store, harness) => {
      const failCommit = harness.failCommit!;
      let lost: string | undefined;
      Object.assign(harness, { failCommit: (how: 'request' | 'reply' | 'silent') => failCommit((lost = how) as typeof how) });
      return {
        unit: async (work) => store.unit(work).then((value) => (lost === 'reply' ? Promise.reject(new Error('connection lost')) : value)),
      };
    },
  },
  {
    name: 'hides a commit in doubt',
    breaks: '21c',
    mutate: (store) => ({
      unit: (work) => store.unit(work).catch((error) => Promise.reject(error.code === 'commit-in-doubt' ? new Error('failed') : error)),
    }),
  },
  { name: 'lets two units have one key', breaks: '22a', mutate: records((answer) => (answer.state === 'completed' ? given : answer)) },
  {
    name: 'runs units without a transaction',
    breaks: '22b',
    mutate: (_store, _harness, original) => ({
      async unit(work) {
        const other = (await original.another!()) as Store;
        return work({
          record: (asks) => other.unit((unit) => unit.record(asks)),
          savepoint: (run) => other.unit((unit) => unit.savepoint(run)),
          settle: async (ends) => ends.map(() => 'ok'),
        });
      },
    }),
  },
];

function mutated(mutant: Mutant): Harness {
  const original: Harness = sqliteHarness(drivers['node:sqlite']!);
  const harness = { ...original };
  const mutate = (store: Store): Store => ({ ...store, ...mutant.mutate(store, harness, original) });
  return Object.assign(harness, { store: mutate(original.store), another: async () => mutate((await original.another!()) as Store) });
}

describe('the transactional contract', () => {
  it.each(mutants.map((mutant) => [`${mutant.name} → ${mutant.breaks}`, mutant] as const))('catches a store that %s', async (_, mutant) => {
    const clause = transactionalClauses.find(({ id }) => id === mutant.breaks)!;
    await runClause(clause, () => sqliteHarness(drivers['node:sqlite']!) as TransactionalHarness);
    await expect(runClause(clause, () => mutated(mutant) as TransactionalHarness)).rejects.toThrow();
  });

  it('has no clause that no broken store breaks', () => {
    expect(transactionalClauses.map(({ id }) => id).filter((id) => !mutants.some(({ breaks }) => breaks === id))).toEqual([]);
  });
});
