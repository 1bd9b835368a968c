import assert from 'node:assert/strict';
import { adminOf, asCompleted, asParked, asReleased, type Clause, claimed, expectState, keyOf, retainMs, single, states } from './kit.ts';

/** What people may do with records: `StoreAdmin`. */
export const adminClauses: readonly Clause[] = [
  {
    id: 'admin a',
    says: 'inspect shows the record of a key in each state, and nothing of an expired or unknown one',
    needs: 'admin',
    async run(harness) {
      const { inspect } = adminOf(harness.store);
      assert.equal(await inspect(keyOf('unknown')), undefined);
      for (const state of ['claimed', 'released', 'completed', 'parked'] as const) {
        await states[state](harness, state);
        const view = await inspect(keyOf(state));
        assert.ok(view, `a ${state} record`);
        assert.deepEqual([view.key, view.state, view.attempts], [keyOf(state), state, 1]);
        assert.ok(view.fence > 0 && view.ageMs >= 0 && view.remainingMs > 0 && view.remainingMs <= retainMs);
        if (state === 'parked')
          assert.deepEqual([view.reason, view.detail, view.label], ['max-attempts', 'Error: 7 of 7', 'billing/order-1']);
        assert.equal(JSON.stringify(view).includes('owner'), false, 'the token is secret');
      }
      await harness.elapse(retainMs + 1 + (harness.precisionMs ?? 0));
      assert.equal(await inspect(keyOf('completed')), undefined);
    },
  },
  {
    id: 'admin b',
    says: 'listParked pages through the parked records, oldest first, and shows no others',
    needs: 'admin',
    async run(harness) {
      const { listParked } = adminOf(harness.store);
      assert.deepEqual(await listParked({ limit: 10 }), []);
      for (const state of ['claimed', 'released', 'completed'] as const) await states[state](harness, state);
      const names = ['p3', 'p1', 'p5', 'p2', 'p4'];
      for (const name of names) {
        await states.parked(harness, name);
        await harness.elapse(10 + 2 * (harness.precisionMs ?? 0));
      }
      const seen: string[] = [];
      for (let after: string | undefined; ; after = seen.at(-1)) {
        const page = await listParked({ limit: 2, after });
        assert.ok(page.length <= 2 && page.every((view) => view.state === 'parked'));
        if (page.length === 0) break;
        seen.push(...page.map((view) => view.key));
      }
      assert.deepEqual(seen, names.map(keyOf));
      await harness.elapse(retainMs + 1);
      assert.deepEqual(await listParked({ limit: 10 }), [], 'expired ones are not shown');
    },
  },
  {
    id: 'admin c',
    says: 'replay lets a parked message be tried again, as a first attempt; nothing else can be replayed',
    needs: 'admin',
    async run(harness) {
      const { claim, settle } = single(harness.store);
      const { replay, listParked } = adminOf(harness.store);
      for (const state of ['claimed', 'released', 'completed'] as const) {
        await states[state](harness, state);
        assert.equal(await replay(keyOf(state)), false, state);
      }
      assert.equal(await replay(keyOf('unknown')), false);
      const { fence } = claimed(await claim('a', 'owner'));
      await settle('a', 'owner', asParked);
      assert.equal(await replay(keyOf('a')), true);
      assert.equal(await replay(keyOf('a')), false, 'it is parked no more');
      assert.deepEqual(await listParked({ limit: 10 }), []);
      assert.equal(await settle('a', 'owner', asCompleted), 'fenced', 'the last owner is none any more');
      const again = claimed(await claim('a', 'second'));
      assert.deepEqual([again.attempt, again.orphaned, again.fence > fence], [1, false, true]);
      expectState(await claim('completed', 'x'), 'completed', 'not touched');
    },
  },
  {
    id: 'admin d',
    says: 'forget makes a message new, unless it is claimed under a running lease',
    needs: 'admin',
    async run(harness) {
      const { claim, settle } = single(harness.store);
      const { forget } = adminOf(harness.store);
      assert.equal(await forget(keyOf('unknown')), false);
      await states.claimed(harness, 'held');
      assert.equal(await forget(keyOf('held')), false);
      assert.equal(await settle('held', 'owner', asReleased), 'ok', 'it is still there');
      for (const state of ['orphaned', 'released', 'completed', 'parked'] as const) {
        await states[state](harness, state);
        assert.equal(await forget(keyOf(state)), true, state);
        assert.equal(await forget(keyOf(state)), false, `${state}, forgotten`);
        assert.equal(await settle(state, 'owner', asCompleted), 'fenced', `${state}, forgotten`);
        assert.equal(claimed(await claim(state, 'other')).attempt, 1, state);
      }
    },
  },
  {
    id: 'admin e',
    says: 'stats counts the records in each state, expired ones not',
    needs: 'admin',
    async run(harness) {
      const { stats } = adminOf(harness.store);
      assert.deepEqual(await stats(), { claimed: 0, released: 0, completed: 0, parked: 0 });
      let n = 0;
      for (const [state, count] of [
        ['claimed', 4],
        ['released', 3],
        ['completed', 2],
        ['parked', 1],
      ] as const) {
        for (let i = 0; i < count; i++) await states[state](harness, `record ${n++}`);
      }
      assert.deepEqual({ ...(await stats()) }, { claimed: 4, released: 3, completed: 2, parked: 1 });
      await harness.elapse(retainMs + 1 + (harness.precisionMs ?? 0));
      assert.deepEqual({ ...(await stats()) }, { claimed: 0, released: 0, completed: 0, parked: 0 });
    },
  },
];
