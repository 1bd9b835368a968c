import assert from 'node:assert/strict';
import type { Answer, Ask, DedupStore, Ending, TransactionalStore, Unit } from '../../store.ts';
import {
  asCompleted,
  ask,
  asParked,
  asReleased,
  asUncounted,
  type Clause,
  claimed,
  expectState,
  fingerprintOf,
  keyOf,
  leaseMs,
  retainMs,
  type StoreHarness,
  single,
  states,
} from './kit.ts';

/** What the test of a transactional store gives to each clause. */
export interface TransactionalHarness<Tx = unknown> extends StoreHarness {
  readonly store: DedupStore & TransactionalStore<Tx> & StoreHarness['store'];
  /** Writes an effect through the transaction. */
  write(tx: Tx, text: string): Promise<void> | void;
  /** The committed effects, in any order, as somebody outside of all transactions sees them. */
  read(): Promise<readonly string[]>;
  /** Another client of the same data, on its own connection. Default: `store` itself. */
  another?(): Promise<DedupStore & TransactionalStore<Tx>>;
  /**
   * Makes the next COMMIT fail for the driver: the `request` is lost, so nothing is committed; or the `reply` is, so all is. `silent`:
   * it is committed or not, and nobody can find out.
   */
  failCommit?(lost: 'request' | 'reply' | 'silent'): void;
}

type UnitClause = Clause<TransactionalHarness>;

/** Contract 20 to 22: effects and records in one transaction. */
export const unitClauses: readonly UnitClause[] = [
  {
    id: '20a',
    says: 'when a unit resolves, its effects and its records have committed',
    async run(harness) {
      const { store } = harness;
      const result = await store.unit(async (unit) => {
        assert.deepEqual(
          (await unit.record([ask('a', 't'), ask('b', 't')])).map((answer) => claimed(answer).attempt),
          [1, 1],
        );
        await effect(harness, unit, 'a');
        await effect(harness, unit, 'b');
        return 'what work returned';
      });
      assert.equal(result, 'what work returned');
      assert.deepEqual([...(await harness.read())].sort(), ['a', 'b']);
      for (const name of ['a', 'b']) expectState(await single(store).claim(name, 'x'), 'completed');
    },
  },
  {
    id: '20b',
    says: 'when work rejects, nothing has committed, and the same error is thrown',
    async run(harness) {
      const failure = new Error('work failed');
      const unit = harness.store.unit(async (unit) => {
        await unit.record([ask('a', 't')]);
        await effect(harness, unit, 'a');
        throw failure;
      });
      await assert.rejects(unit, (error) => error === failure);
      assert.deepEqual(await harness.read(), []);
      const again = claimed(await single(harness.store).claim('a', 'x'));
      assert.equal(again.attempt, 1, 'the record has gone with the unit');
    },
  },
  {
    id: '20c',
    says: 'a savepoint that rejects undoes its own effects, nothing else, and throws the same error',
    async run(harness) {
      const failure = new Error('handler failed');
      await harness.store.unit(async (unit) => {
        await unit.record([ask(0, 't'), ask(1, 't'), ask(2, 't')]);
        const returned = await unit.savepoint(async (tx) => {
          await harness.write(tx, 'zero');
          return 'returned';
        });
        assert.equal(returned, 'returned');
        const failed = unit.savepoint(async (tx) => {
          await harness.write(tx, 'one');
          await harness.write(tx, 'one and a half');
          throw failure;
        });
        await assert.rejects(failed, (error) => error === failure);
        await effect(harness, unit, 'two');
        await unit.settle([end(1, asReleased)]);
      });
      assert.deepEqual([...(await harness.read())].sort(), ['two', 'zero']);
      const { claim } = single(harness.store);
      expectState(await claim(0, 'x'), 'completed');
      assert.equal(claimed(await claim(1, 'x')).attempt, 2);
      expectState(await claim(2, 'x'), 'completed');
    },
  },
  {
    id: '20d',
    says: 'settle in a unit says what becomes of its records; the last word counts, and tokens are compared',
    async run({ store }) {
      await store.unit(async (unit) => {
        await unit.record(['result', 'released', 'uncounted', 'parked', 'plain', 'twice'].map((name) => ask(name, 't')));
        const ends = [
          end('result', { as: 'completed', result: 'kept' }),
          end('released', asReleased),
          end('uncounted', asUncounted),
          end('parked', asParked),
        ];
        assert.deepEqual(await unit.settle(ends), ['ok', 'ok', 'ok', 'ok']);
        assert.deepEqual(await unit.settle([end('uncounted', asUncounted), end('twice', { as: 'completed', result: 'r' })]), ['ok', 'ok']);
        assert.deepEqual(await unit.settle([end('twice', asReleased)]), ['ok']);
        assert.deepEqual(await unit.settle([{ ...end('plain', asReleased), token: 'other' }, end('unknown', asCompleted)]), [
          'fenced',
          'fenced',
        ]);
      });
      const { claim } = single(store);
      const result = await claim('result', 'x');
      assert.equal(result.state === 'completed' && result.result, 'kept');
      assert.equal(claimed(await claim('released', 'x')).attempt, 2);
      assert.equal(claimed(await claim('uncounted', 'x')).attempt, 1);
      assert.equal(claimed(await claim('twice', 'x')).attempt, 2);
      expectState(await claim('plain', 'x'), 'completed');
      assert.deepEqual(await claim('parked', 'x'), { state: 'parked', reason: 'max-attempts', detail: 'Error: 7 of 7', attempts: 1 });
    },
  },
  {
    id: '20e',
    says: 'record answers as claim does, and takes nothing that it does not answer claimed',
    async run(harness) {
      const { store } = harness;
      await states.orphaned(harness, 'orphaned');
      for (const state of ['claimed', 'released', 'completed', 'parked'] as const) await states[state](harness, state);
      const names = ['claimed', 'released', 'completed', 'parked', 'orphaned', 'new'];
      const [answers, mismatches] = await store.unit(async (unit) => [
        await unit.record(names.map((name) => ask(name, 't'))),
        await unit.record(names.slice(0, 4).map((name) => ask(name, 'u', { fingerprint: fingerprintOf('another') }))),
      ]);
      assert.deepEqual(
        answers.map((answer) => answer.state),
        ['busy', 'claimed', 'completed', 'parked', 'claimed', 'claimed'],
      );
      assert.deepEqual(
        answers.filter((answer) => answer.state === 'claimed').map(({ attempt, orphaned }) => [attempt, orphaned]),
        [
          [2, false],
          [2, true],
          [1, false],
        ],
      );
      assert.ok(mismatches.every((answer) => answer.state === 'mismatch'));
      assert.equal(await single(store).settle('claimed', 'owner', asCompleted), 'ok', 'the owner is still the owner');
      assert.equal(await single(store).settle('orphaned', 'owner', asReleased), 'fenced', 'its lease had ended, and the unit took it');
      for (const name of ['released', 'orphaned', 'new']) expectState(await single(store).claim(name, 'x'), 'completed', name);
    },
  },
  {
    id: '20f',
    says: 'a second ask for a key in one unit is busy, because the first may still fail; the same token is the same record',
    async run({ store }) {
      const answers = await store.unit(async (unit) => {
        const first = await unit.record([ask('a', 't'), ask('a', 'u'), ask('a', 't')]);
        const second = await unit.record([ask('a', 'v')]);
        await unit.settle([end('a', asReleased)]);
        return [...first, ...second, ...(await unit.record([ask('a', 'w')]))];
      });
      assert.deepEqual(
        answers.map((answer) => answer.state),
        ['claimed', 'busy', 'claimed', 'busy', 'claimed'],
      );
      assert.deepEqual(answers[2], answers[0]);
      assert.equal(claimed(answers[4]).attempt, 2);
      expectState(await single(store).claim('a', 'x'), 'completed');
    },
  },
  {
    id: '20g',
    says: 'a claim that is held under the same token becomes the record, with its attempt and its fence',
    async run(harness) {
      const { store } = harness;
      await states.released(harness, 'a');
      const held = claimed(await single(store).claim('a', 't'));
      const failing = store.unit(async (unit) => {
        assert.deepEqual(await unit.record([ask('a', 't')]), [held]);
        throw new Error('no');
      });
      await assert.rejects(failing, /no/);
      expectState(await single(store).claim('a', 'x'), 'busy', 'the claim is what it was');
      await store.unit(async (unit) => assert.deepEqual(await unit.record([ask('a', 't')]), [held]));
      expectState(await single(store).claim('a', 'x'), 'completed');
    },
  },
  {
    id: '20h',
    says: 'a unit of 500 messages, of which every third fails, commits the others',
    async run(harness) {
      await harness.store.unit(async (unit) => {
        const asks = Array.from({ length: 500 }, (_, i) => ask(i, `t${i}`));
        assert.ok((await unit.record(asks)).every((answer) => answer.state === 'claimed'));
        for (let i = 0; i < 500; i++) {
          const handler = unit.savepoint(async (tx) => {
            await harness.write(tx, `effect ${i}`);
            if (i % 3 === 0) throw new Error('every third');
          });
          if (i % 3 === 0) {
            await assert.rejects(handler, /every third/);
            await unit.settle([{ key: keyOf(i), token: `t${i}`, retainMs, ...asReleased }]);
          } else await handler;
        }
      });
      const expected = Array.from({ length: 500 }, (_, i) => i)
        .filter((i) => i % 3 !== 0)
        .map((i) => `effect ${i}`);
      assert.deepEqual([...(await harness.read())].sort(), expected.sort());
      const answers = await harness.store.claim(Array.from({ length: 500 }, (_, i) => ask(i, 'x')));
      answers.forEach((answer, i) => expectState(answer, i % 3 === 0 ? 'claimed' : 'completed', `message ${i}`));
    },
  },
  {
    id: '20i',
    says: 'records of units expire, are purged and fenced like others',
    async run(harness) {
      const { store, precisionMs = 0 } = harness;
      const take = (name: string): Promise<Answer> => store.unit(async (unit) => (await unit.record([ask(name, 't')]))[0]!);
      const { fence } = claimed(await take('a'));
      await harness.elapse(retainMs - 1 - precisionMs);
      expectState(await take('a'), 'completed');
      await harness.elapse(2 + 2 * precisionMs);
      const again = claimed(await take('a'));
      assert.deepEqual([again.attempt, again.fence > fence], [1, true]);
      await store.unit((unit) => unit.record(Array.from({ length: 9 }, (_, i) => ask(`purged ${i}`, 't'))));
      await harness.elapse(retainMs + 1 + precisionMs);
      assert.deepEqual([await store.purge(4), await store.purge(4), await store.purge(4), await store.purge(4)], [4, 4, 2, 0]);
      assert.equal(claimed(await take('a')).attempt, 1);
    },
  },
  {
    id: '20j',
    says: 'a batch of claims that are held, have lapsed or are new becomes records, and the claim of another is left alone',
    async run(harness) {
      const { store, precisionMs = 0 } = harness;
      claimed(await single(store).claim('lapsed', 't1'));
      await harness.elapse(leaseMs + 1 + precisionMs);
      const held = claimed(await single(store).claim('held', 't2'));
      claimed(await single(store).claim('other', 'x'));
      const asks = [ask('other', 't3'), ask('lapsed', 't1'), ask('new', 't4'), ask('held', 't2')];
      const answers = await store.unit((unit) => unit.record(asks));
      assert.deepEqual(
        answers.map(({ state }) => state),
        ['busy', 'claimed', 'claimed', 'claimed'],
      );
      assert.deepEqual(answers[3], held);
      for (const name of ['lapsed', 'new', 'held']) expectState(await single(store).claim(name, 'y'), 'completed', name);
      expectState(await single(store).claim('other', 'y'), 'busy');
    },
  },
  {
    id: '21a',
    says: 'a COMMIT whose request was lost has not committed, and the unit rejects',
    needs: 'failCommit',
    async run(harness) {
      await assert.rejects(oneMessage(harness, 'request'), (error: { code?: unknown }) => error.code !== 'commit-in-doubt');
      assert.deepEqual(await harness.read(), []);
      claimed(await single(harness.store).claim('a', 'x'));
    },
  },
  {
    id: '21b',
    says: 'a COMMIT whose reply was lost has committed, and the unit resolves',
    needs: 'failCommit',
    async run(harness) {
      assert.equal(await oneMessage(harness, 'reply'), 'done');
      assert.deepEqual(await harness.read(), ['a']);
      expectState(await single(harness.store).claim('a', 'x'), 'completed');
    },
  },
  {
    id: '21c',
    says: 'a COMMIT whose outcome can not be found out is an error of code commit-in-doubt',
    needs: 'failCommit',
    run: (harness) => assert.rejects(oneMessage(harness, 'silent'), { code: 'commit-in-doubt' }),
  },
  {
    id: '22a',
    says: 'of units that record a key at once, one is answered claimed; the others wait, and take over if it rolls back',
    async run(harness) {
      for (const outcome of ['commits', 'rolls back'] as const) {
        let failing = outcome === 'rolls back';
        const clients = await Promise.all(Array.from({ length: 4 }, () => harness.another?.() ?? harness.store));
        const results = await Promise.allSettled(
          clients.map((client, c) =>
            client.unit(async (unit) => {
              const [answer] = await unit.record([ask(outcome, `client ${c}`)]);
              if (answer!.state === 'claimed') await effect(harness, unit, `${outcome} ${c}`);
              if (failing) {
                failing = false;
                throw new Error('the first one fails');
              }
              return answer!.state;
            }),
          ),
        );
        const answers = results.map((result) => (result.status === 'fulfilled' ? result.value : 'failed')).sort();
        const expected =
          outcome === 'commits' ? ['claimed', 'completed', 'completed', 'completed'] : ['claimed', 'completed', 'completed', 'failed'];
        assert.deepEqual(answers, expected, outcome);
        assert.equal((await harness.read()).filter((text) => text.startsWith(outcome)).length, 1, `one effect when the first ${outcome}`);
      }
    },
  },
  {
    id: '22b',
    says: 'what a unit has not committed is seen by nobody else',
    async run(harness) {
      let waiting: Promise<Answer> | undefined;
      await harness.store.unit(async (unit) => {
        await unit.record([ask('a', 't')]);
        await effect(harness, unit, 'a');
        assert.deepEqual(await harness.read(), [], 'effects');
        const other = (await harness.another?.()) ?? harness.store;
        waiting = single(other).claim('a', 'x');
        const early = await Promise.race([
          waiting.then(({ state }) => state),
          new Promise<string>((resolve) => setImmediate(resolve, 'waits')),
        ]);
        assert.ok(early === 'waits' || early === 'busy', `expected a claim to wait for the unit, or busy, got ${early}`);
      });
      const answer = await waiting!;
      assert.ok(answer.state === 'completed' || answer.state === 'busy', `got ${answer.state}`);
      assert.deepEqual(await harness.read(), ['a']);
      expectState(await single(harness.store).claim('a', 'y'), 'completed');
    },
  },
];

const end = (name: string | number, ending: Ending) => ({ key: keyOf(name), token: 't', retainMs, ...ending });

function effect(harness: TransactionalHarness, unit: Unit<unknown>, text: string): Promise<void> {
  return unit.savepoint(async (tx) => harness.write(tx, text));
}

function oneMessage(harness: TransactionalHarness, lost: 'request' | 'reply' | 'silent'): Promise<string> {
  return harness.store.unit(async (unit) => {
    await unit.record([ask('a', 't', { leaseMs }) satisfies Ask]);
    await effect(harness, unit, 'a');
    harness.failCommit!(lost);
    return 'done';
  });
}
