import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import type { Entries, EntryWrite, Journal } from '../../src/effects/journal.ts';
import type { DedupStore, Key, Settled, StoreAdmin } from '../../src/store.ts';
import { type JournalHarness, journalClauses, journalContract, runClause } from '../../src/testing/index.ts';
import { drivers } from '../adapters/stores/sqlite-harness.ts';
import { memoryJournal, sqliteJournal } from './journals.ts';

journalContract({
  describe,
  it,
  name: 'memoryStore',
  open: memoryJournal,
  skip: [
    { clause: '36a', reason: 'nothing in memory survives the process, and the store says so' },
    { clause: '36b', reason: 'nobody else can write the records of this store' },
  ],
});

for (const driver of Object.keys(drivers)) {
  journalContract({ describe, it, name: `sqliteStore on ${driver}`, open: () => sqliteJournal(driver) });
}

type Store = JournalHarness['store'] & StoreAdmin;
type Original = DedupStore & Journal & StoreAdmin;

/** A journal that is wrong in one way, and the clause that must notice. */
interface Mutant {
  readonly name: string;
  readonly breaks: string;
  mutate(store: Original, harness: JournalHarness): Partial<Store>;
}

/** Changes what is written. `undefined` keeps it from the store, and answers ok. */
const writes =
  (change: (write: EntryWrite, store: Original) => EntryWrite | undefined): Mutant['mutate'] =>
  (store) => ({
    async writeEntries(all) {
      const settled: Settled[] = [];
      for (const write of all) {
        const changed = change(write, store);
        settled.push(changed ? (await store.writeEntries([changed]))[0]! : 'ok');
      }
      return settled;
    },
  });

const reads =
  (change: (entries: Entries, key: Key) => Entries): Mutant['mutate'] =>
  (store) => ({ readEntries: async (claims) => (await store.readEntries(claims)).map((entries, i) => change(entries, claims[i]!.key)) });

/** A journal beside the store, as one that has its own table would be. Each mutant forgets one of its duties. */
function aside(
  store: Original,
  options: { admits?(write: { key: Key; token: string }): Promise<boolean>; keepsFinal?: boolean; forgets?: boolean; dropsOn?: string },
): Partial<Store> {
  const journal = new Map<Key, Map<string, EntryWrite>>();
  const admits =
    options.admits ?? (async ({ key, token }: { key: Key; token: string }) => (await store.readEntries([{ key, token }]))[0] !== 'fenced');
  return {
    async claim(asks) {
      const answers = await store.claim(asks);
      for (const [i, answer] of answers.entries()) {
        const anew = answer.state === 'claimed' && answer.attempt === 1;
        const takeover = options.dropsOn === 'takeover' && answer.state === 'claimed' && answer.orphaned;
        if ((anew && options.forgets !== false) || takeover) journal.delete(asks[i]!.key);
      }
      return answers;
    },
    async settle(ends) {
      for (const end of ends)
        if (options.dropsOn === end.as || (options.dropsOn === 'uncounted' && end.as === 'released' && !end.counted))
          journal.delete(end.key);
      return store.settle(ends);
    },
    async writeEntries(all) {
      const settled: Settled[] = [];
      for (const write of all) {
        if (!(await admits(write))) settled.push('fenced');
        else {
          const entries = journal.get(write.key) ?? new Map<string, EntryWrite>();
          journal.set(write.key, entries);
          const before = entries.get(write.name);
          if (options.keepsFinal === false || !before || before.state === 'started') entries.set(write.name, write);
          settled.push('ok');
        }
      }
      return settled;
    },
    async readEntries(claims) {
      return Promise.all(
        claims.map(async (claim) => {
          if (!(await admits(claim))) return 'fenced';
          return [...(journal.get(claim.key)?.values() ?? [])].map(({ name, state, text }) => ({ name, state, text }));
        }),
      );
    },
  };
}

const stateOf = (store: Original, key: Key) => store.inspect(key).then((view) => view?.state);

const mutants: readonly Mutant[] = [
  {
    name: 'answers in another order',
    breaks: '30a',
    mutate: (store) => ({ readEntries: async (claims) => [...(await store.readEntries(claims))].reverse() }),
  },
  {
    name: 'writes a batch backwards',
    breaks: '30b',
    mutate: (store) => ({ writeEntries: async (all) => [...(await store.writeEntries([...all].reverse()))].reverse() }),
  },
  {
    name: 'does not look at the token',
    breaks: '31a',
    mutate: (store) => aside(store, { admits: async ({ key }) => (await stateOf(store, key)) === 'claimed' }),
  },
  ...(['completed', 'released', 'parked'] as const).map(
    (state): Mutant => ({
      name: `lets a token write that has settled: ${state}`,
      breaks: `31b ${state}`,
      mutate: (store) =>
        aside(store, {
          admits: async ({ key, token }) =>
            (await stateOf(store, key)) === state || (await store.readEntries([{ key, token }]))[0] !== 'fenced',
        }),
    }),
  ),
  {
    name: 'fences a claim as soon as its lease has ended',
    breaks: '31c',
    mutate(store, harness) {
      const until = new Map<Key, number>();
      let now = 0;
      const { elapse } = harness;
      Object.assign(harness, { elapse: (ms: number) => elapse((now += ms) && ms) });
      return {
        async claim(asks) {
          for (const ask of asks) until.set(ask.key, now + ask.leaseMs);
          return store.claim(asks);
        },
        writeEntries: async (all) =>
          (await store.writeEntries(all)).map((settled, i) => (now > until.get(all[i]!.key)! ? 'fenced' : settled)),
      };
    },
  },
  {
    name: 'takes writes for keys that it does not know',
    breaks: '31d',
    mutate: (store) =>
      aside(store, {
        admits: async ({ key, token }) => !(await stateOf(store, key)) || (await store.readEntries([{ key, token }]))[0] !== 'fenced',
      }),
  },
  { name: 'lets the last write win', breaks: '32a', mutate: (store) => aside(store, { keepsFinal: false }) },
  {
    name: 'fences a final entry that is sent again',
    breaks: '32a',
    mutate(store) {
      const final = new Set<string>();
      return {
        writeEntries: async (all) =>
          (await store.writeEntries(all)).map((settled, i) => {
            const { key, name, state } = all[i]!;
            const again = final.has(key + name);
            if (state !== 'started') final.add(key + name);
            return again ? 'fenced' : settled;
          }),
      };
    },
  },
  {
    name: 'keeps the first write',
    breaks: '32b',
    mutate(store) {
      const known = new Set<string>();
      return writes((write) => (known.has(write.key + write.name) ? undefined : (known.add(write.key + write.name), write)))(
        store,
        undefined as never,
      );
    },
  },
  { name: 'drops the journal at a release', breaks: '33a', mutate: (store) => aside(store, { forgets: false, dropsOn: 'released' }) },
  { name: 'drops the journal with the attempt', breaks: '33b', mutate: (store) => aside(store, {}) },
  { name: 'drops the journal at a takeover', breaks: '33c', mutate: (store) => aside(store, { forgets: false, dropsOn: 'takeover' }) },
  { name: 'drops the journal when it parks', breaks: '33d', mutate: (store) => aside(store, { forgets: false, dropsOn: 'parked' }) },
  ...(['33e', '33f'] as const).map(
    (breaks): Mutant => ({
      name: `lets entries expire by themselves (${breaks})`,
      breaks,
      mutate(store, harness) {
        let now = 0;
        const { elapse } = harness;
        const until = new Map<string, number>();
        Object.assign(harness, { elapse: (ms: number) => elapse((now += ms) && ms) });
        return {
          async writeEntries(all) {
            for (const { key, name } of all) until.set(key + name, now + 100_000);
            return store.writeEntries(all);
          },
          ...reads((entries, key) => (entries === 'fenced' ? entries : entries.filter(({ name }) => until.get(key + name)! > now)))(
            store,
            harness,
          ),
        };
      },
    }),
  ),
  ...(['33g', '33h', '33i'] as const).map(
    (breaks): Mutant => ({
      name: `keeps entries without their record (${breaks})`,
      breaks,
      mutate: (store) => aside(store, { forgets: false }),
    }),
  ),
  {
    name: 'empties the journal when it purges',
    breaks: '33j',
    mutate(store) {
      let purged = false;
      return {
        purge: async (limit) => ((purged = true), store.purge(limit)),
        ...reads((entries) => (purged && entries !== 'fenced' ? [] : entries))(store, undefined as never),
      };
    },
  },
  {
    name: 'mixes up the journals of keys',
    breaks: '34a',
    mutate(store) {
      const all: Record<string, EntryWrite> = {};
      return {
        async writeEntries(writes) {
          for (const write of writes) all[write.name] = write;
          return store.writeEntries(writes);
        },
        ...reads((entries) =>
          entries === 'fenced' ? entries : Object.values(all).map(({ name, state, text }) => ({ name, state, text })),
        )(store, undefined as never),
      };
    },
  },
  { name: 'cuts text at its first NUL', breaks: '35a', mutate: writes((write) => ({ ...write, text: write.text.split('\0')[0]! })) },
  { name: 'cuts text at 60,000 bytes', breaks: '35a', mutate: writes((write) => ({ ...write, text: write.text.slice(0, 60_000) })) },
  { name: 'compares names without case', breaks: '35b', mutate: writes((write) => ({ ...write, name: write.name.toLowerCase() })) },
  { name: 'trims names', breaks: '35b', mutate: writes((write) => ({ ...write, name: write.name.trimEnd() })) },
  { name: 'normalises names', breaks: '35b', mutate: writes((write) => ({ ...write, name: write.name.normalize() })) },
  { name: 'cuts names', breaks: '35b', mutate: writes((write) => ({ ...write, name: write.name.slice(0, 499) })) },
  { name: 'reads a page of entries', breaks: '35c', mutate: reads((entries) => (entries === 'fenced' ? entries : entries.slice(0, 999))) },
];

async function broken(open: () => JournalHarness): Promise<string[]> {
  const failures: string[] = [];
  for (const clause of journalClauses.filter(({ needs }) => needs !== 'reopen' && needs !== 'corrupt')) {
    await runClause(clause, open).catch(() => failures.push(clause.id));
  }
  return failures;
}

describe('the journal contract', () => {
  it.each(mutants.map((mutant) => [`${mutant.name} → ${mutant.breaks}`, mutant] as const))(
    'catches a journal that %s',
    async (_, mutant) => {
      const open = () => {
        const harness = { ...memoryJournal() };
        return Object.assign(harness, { store: { ...harness.store, ...mutant.mutate(harness.store as Original, harness) } });
      };
      expect(await broken(open)).toContain(mutant.breaks);
    },
  );

  it.each([
    ['loses what was written at a crash', '36a', { reopen: async () => memoryJournal().store }],
    ['writes to a record that can’t be read', '36b', { corrupt: () => {} }],
  ] as const)('catches a journal that %s → %s', async (_, id, change) => {
    const clause = journalClauses.find((each) => each.id === id)!;
    await expect(runClause(clause, () => ({ ...memoryJournal(), ...change }))).rejects.toThrow(/.*/);
  });

  it('has no clause that no broken journal breaks', () => {
    const broken = new Set([...mutants.map(({ breaks }) => breaks), '36a', '36b']);
    expect(journalClauses.map(({ id }) => id).filter((id) => !broken.has(id))).toEqual([]);
  });
});

describe('the journal in SQLite', () => {
  it('loses the entries of a record that has expired to a unit too, so that steps of a former life are done again', async () => {
    let now = 1_000_000;
    const store = sqliteStore(new DatabaseSync(':memory:'), { now: () => now });
    const key = 'A'.repeat(32);
    const ask = (token: string) => ({ key, fingerprint: '', token, leaseMs: 1_000, retainMs: 2_000 });
    await store.claim([ask('leased')]);
    await store.writeEntries([{ key, token: 'leased', name: 'charge', state: 'done', text: '1' }]);
    now += 2_000;
    await store.unit(async (unit) => {
      expect(await unit.record([ask('unit')])).toMatchObject([{ state: 'claimed', attempt: 1 }]);
      await unit.settle([{ key, token: 'unit', retainMs: 2_000, as: 'released', counted: true }]);
    });
    expect(await store.claim([ask('again')])).toMatchObject([{ state: 'claimed', attempt: 2 }]);
    expect(await store.readEntries([{ key, token: 'again' }])).toEqual([[]]);
  });
});
