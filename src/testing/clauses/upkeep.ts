import assert from 'node:assert/strict';
import { asCompleted, ask, asReleased, type Clause, claimed, expectState, keyOf, leaseMs, retainMs, single, states } from './kit.ts';

/** Contract 12 to 15: purging, the store's time, durability, doubt. */
export const upkeepClauses: readonly Clause[] = [
  {
    id: '12a',
    says: 'purge deletes at most the given number of expired records, and answers how many',
    async run({ store, elapse, precisionMs = 0 }) {
      const asks = Array.from({ length: 25 }, (_, i) => ask(i, 'owner'));
      await store.claim(asks);
      await store.settle(asks.map(({ key, token }) => ({ key, token, retainMs, ...asCompleted })));
      assert.equal(await store.purge(10), 0, 'nothing has expired');
      await elapse(retainMs + 1 + precisionMs);
      assert.deepEqual([await store.purge(10), await store.purge(10), await store.purge(10), await store.purge(10)], [10, 10, 5, 0]);
    },
  },
  {
    id: '12b',
    says: 'purge deletes nothing but expired records',
    async run(harness) {
      const { store, elapse, precisionMs = 0 } = harness;
      const { claim, extend } = single(store);
      claimed(await claim('lives', 'owner', { retainMs: leaseMs }));
      await states.completed(harness, 'old');
      await elapse(retainMs / 2);
      assert.equal(await extend('lives', 'owner', retainMs), 'fenced', 'its retention has ended');
      claimed(await claim('lives', 'owner', { retainMs: leaseMs }));
      assert.equal(await extend('lives', 'owner', retainMs), 'ok');
      for (const state of ['released', 'completed', 'parked'] as const) await states[state](harness, `fresh ${state}`);
      await elapse(retainMs / 2 + 1 + precisionMs);
      assert.equal(await store.purge(1_000), 1, 'only the old one');
      expectState(await claim('lives', 'other'), 'busy');
      assert.equal(claimed(await claim('fresh released', 'other')).attempt, 2);
      expectState(await claim('fresh completed', 'other'), 'completed');
      expectState(await claim('fresh parked', 'other'), 'parked');
      assert.equal(claimed(await claim('old', 'other')).attempt, 1);
    },
  },
  {
    id: '13a',
    says: "leases and retention end by the store's clock, whatever the caller's says",
    async run(harness) {
      const { claim } = single(harness.store);
      await states.completed(harness, 'done');
      claimed(await claim('held', 'owner'));
      // biome-ignore lint/plugin: the clause is about the clock that a store must not read.
      const real = Date.now;
      try {
        Date.now = () => real() + 365 * 86_400_000;
        expectState(await claim('held', 'other'), 'busy', "a year later by the caller's clock");
        expectState(await claim('done', 'other'), 'completed', "a year later by the caller's clock");
        assert.equal(await harness.store.purge(10), 0);
        claimed(await claim('new', 'ahead'));
      } finally {
        Date.now = real;
      }
      await harness.elapse(leaseMs + 1 + (harness.precisionMs ?? 0));
      claimed(await claim('new', 'other'));
    },
  },
  {
    id: '14a',
    says: 'what was answered survives a restart of the store: claims, results, attempts, reasons, fences',
    needs: 'reopen',
    async run(harness) {
      for (const state of ['claimed', 'released', 'parked'] as const) await states[state](harness, state);
      claimed(await single(harness.store).claim('done', 'owner'));
      await single(harness.store).settle('done', 'owner', { as: 'completed', result: 'kept' });
      const store = await harness.reopen!();
      const { claim, settle } = single(store);
      expectState(await claim('claimed', 'other'), 'busy');
      assert.equal(await settle('claimed', 'owner', asCompleted), 'ok', 'the owner still owns');
      const again = claimed(await claim('released', 'other'));
      assert.equal(again.attempt, 2);
      assert.deepEqual(await claim('parked', 'other'), { state: 'parked', reason: 'max-attempts', detail: 'Error: 7 of 7', attempts: 1 });
      const done = await claim('done', 'other');
      assert.equal(done.state === 'completed' && done.result, 'kept');
      const fence = again.fence;
      await settle('released', 'other', asReleased);
      assert.ok(claimed(await claim('released', 'third')).fence > fence);
    },
  },
  {
    id: '15a',
    says: 'a record that can not be read is answered corrupt, and never taken for absent or for an own claim',
    needs: 'corrupt',
    async run(harness) {
      const { store } = harness;
      for (const state of ['claimed', 'completed'] as const) {
        await states[state](harness, state);
        await harness.corrupt!(keyOf(state));
        expectState(await single(store).claim(state, 'other'), 'corrupt');
        expectState(await single(store).claim(state, 'owner'), 'corrupt');
        assert.equal(await refused(() => single(store).settle(state, 'owner', asCompleted)), 'refused');
        assert.equal(await refused(() => single(store).extend(state, 'owner')), 'refused');
      }
      claimed(await single(store).claim('a neighbour', 'x'));
    },
  },
];

/** A throw and `fenced` are both right for a record that nobody can read; `ok` is not. */
async function refused(verb: () => Promise<string>): Promise<string> {
  try {
    const answer = await verb();
    return answer === 'fenced' ? 'refused' : answer;
  } catch {
    return 'refused';
  }
}
