import assert from 'node:assert/strict';
import type { Ending } from '../../store.ts';
import {
  adminOf,
  asCompleted,
  asParked,
  asReleased,
  asUncounted,
  type Clause,
  claimed,
  expectAbout,
  expectState,
  keyOf,
  leaseMs,
  retainMs,
  type StoreHarness,
  single,
  states,
} from './kit.ts';

const endings: readonly (readonly [string, Ending])[] = [
  ['completed', asCompleted],
  ['released', asReleased],
  ['parked', asParked],
];

/** Contract 5 to 8: who owns a claim, and who does no more. */
export const ownershipClauses: readonly Clause[] = [
  {
    id: '5a',
    says: 'a claim is busy until its lease ends, with the remaining time, and then available',
    async run(harness) {
      const { claim } = single(harness.store);
      const slack = harness.precisionMs ?? 0;
      claimed(await claim('a', 'owner'));
      const at = [0, 1, leaseMs - 1 - slack];
      let passed = 0;
      for (const ms of at) {
        await harness.elapse(ms - passed);
        passed = ms;
        const answer = await claim('a', 'other');
        expectState(answer, 'busy', `${ms} ms after the claim`);
        if (answer.state === 'busy') expectAbout(answer.remainingMs, leaseMs - ms, harness, 'a remaining lease');
      }
      await harness.elapse(2 + slack);
      claimed(await claim('a', 'other'));
    },
  },
  {
    id: '5b',
    says: 'until others take it, a claim whose lease has ended can be extended and settled by its token',
    async run(harness) {
      const { claim, settle, extend } = single(harness.store);
      for (const [name, ending] of endings) {
        await states.orphaned(harness, name);
        assert.equal(await settle(name, 'owner', ending), 'ok', name);
      }
      await states.orphaned(harness, 'extended');
      assert.equal(await extend('extended', 'owner'), 'ok');
      expectState(await claim('extended', 'other'), 'busy', 'after the extension');
    },
  },
  {
    id: '5c',
    says: 'extend gives a lease from now on, also a shorter one',
    async run(harness) {
      const { claim, extend } = single(harness.store);
      for (const lease of [3 * leaseMs, leaseMs / 2]) {
        claimed(await claim(lease, 'owner'));
        await harness.elapse(leaseMs / 4);
        assert.equal(await extend(lease, 'owner', lease), 'ok');
        const answer = await claim(lease, 'other');
        expectState(answer, 'busy');
        if (answer.state === 'busy') expectAbout(answer.remainingMs, lease, harness, 'a lease');
      }
    },
  },
  { id: '6a', says: 'the fence grows with each claim of a key', run: (harness) => fenceGrows(harness, async () => {}) },
  {
    id: '6b',
    says: 'the fence grows after the record has expired',
    run: (harness) => fenceGrows(harness, () => harness.elapse(retainMs + 1 + (harness.precisionMs ?? 0))),
  },
  {
    id: '6c',
    says: 'the fence grows after the record was purged',
    run: (harness) =>
      fenceGrows(harness, async () => {
        await harness.elapse(retainMs + 1 + (harness.precisionMs ?? 0));
        assert.equal(await harness.store.purge(10), 1);
      }),
  },
  {
    id: '6d',
    says: 'the fence grows after the record was forgotten',
    needs: 'admin',
    run: (harness) => fenceGrows(harness, async (name) => assert.equal(await adminOf(harness.store).forget(name), true)),
  },
  {
    id: '7a',
    says: 'a token that others have taken over from is fenced in every verb and changes nothing',
    async run(harness) {
      const { claim, settle, extend } = single(harness.store);
      await states.orphaned(harness, 'a');
      const owner = claimed(await claim('a', 'new owner'));
      for (const [name, ending] of [...endings, ['uncounted', asUncounted] as const]) {
        assert.equal(await settle('a', 'owner', ending), 'fenced', name);
        expectState(await claim('a', 'other'), 'busy', `after a stale ${name}`);
      }
      await harness.elapse(leaseMs / 2);
      assert.equal(await extend('a', 'owner', 5 * leaseMs), 'fenced');
      const answer = await claim('a', 'other');
      expectState(answer, 'busy');
      if (answer.state === 'busy') expectAbout(answer.remainingMs, leaseMs / 2, harness, "the new owner's lease");
      assert.deepEqual(await claim('a', 'new owner'), owner, 'the new owner holds what it held');
      assert.equal(await settle('a', 'new owner', { as: 'completed', result: 'of the new owner' }), 'ok');
    },
  },
  ...endings.map(
    ([name, ending]): Clause => ({
      id: `7b ${name}`,
      says: 'a stale token is fenced when its successor has settled, and the result stays',
      async run(harness) {
        const { claim, settle, extend } = single(harness.store);
        await states.orphaned(harness, 'a');
        claimed(await claim('a', 'successor'));
        const final: Ending = ending.as === 'completed' ? { as: 'completed', result: 'mine' } : ending;
        assert.equal(await settle('a', 'successor', final), 'ok');
        for (const [verb, late] of [...endings, ['uncounted', asUncounted] as const]) {
          assert.equal(await settle('a', 'owner', late.as === 'completed' ? { ...late, result: 'stale' } : late), 'fenced', verb);
        }
        assert.equal(await extend('a', 'owner'), 'fenced');
        const answer = await claim('a', 'other');
        expectState(answer, name === 'released' ? 'claimed' : (name as 'completed' | 'parked'));
        if (answer.state === 'completed') assert.equal(answer.result, 'mine');
        if (answer.state === 'parked') assert.equal(answer.attempts, 2);
        if (answer.state === 'claimed') assert.equal(answer.attempt, 3);
      },
    }),
  ),
  {
    id: '7c',
    says: 'a token for an unknown key is fenced, and makes no record',
    async run({ store }) {
      const { claim, settle, extend } = single(store);
      for (const [name, ending] of endings) assert.equal(await settle('a', 'nobody', ending), 'fenced', name);
      assert.equal(await extend('a', 'nobody'), 'fenced');
      assert.equal(claimed(await claim('a', 'owner')).attempt, 1);
    },
  },
  ...endings.map(
    ([name, ending]): Clause => ({
      id: `7d ${name}`,
      says: 'a claim that has ended can be neither extended nor ended in another way',
      async run({ store }) {
        const { claim, settle, extend } = single(store);
        claimed(await claim('a', 'owner'));
        assert.equal(await settle('a', 'owner', ending), 'ok');
        assert.equal(await extend('a', 'owner'), 'fenced');
        for (const [other, late] of endings)
          if (other !== name) assert.equal(await settle('a', 'owner', late), 'fenced', `${name}, then ${other}`);
        const answer = await claim('a', 'other');
        expectState(answer, name === 'released' ? 'claimed' : (name as 'completed' | 'parked'));
      },
    }),
  ),
  {
    id: '8a',
    says: 'a claim that is sent again by its token is answered as before, and is no further attempt',
    async run(harness) {
      const { claim, settle } = single(harness.store);
      await states.released(harness, 'a');
      const answer = claimed(await claim('a', 'second'));
      assert.equal(answer.attempt, 2);
      for (let i = 0; i < 3; i++) assert.deepEqual(await claim('a', 'second'), answer);
      await states.orphaned(harness, 'b');
      const takeover = claimed(await claim('b', 'second'));
      assert.equal(takeover.orphaned, true);
      assert.deepEqual(await claim('b', 'second'), takeover);
      await settle('a', 'second', asReleased);
      assert.equal(claimed(await claim('a', 'third')).attempt, 3);
    },
  },
  {
    id: '8b',
    says: 'a claim that is sent again has its lease from then on, also when it had ended in between',
    async run(harness) {
      const { claim } = single(harness.store);
      const first = claimed(await claim('a', 'owner'));
      for (const ms of [leaseMs / 2, leaseMs + 1]) {
        await harness.elapse(ms);
        assert.deepEqual(await claim('a', 'owner'), first, `${ms} ms later`);
        const answer = await claim('a', 'other');
        expectState(answer, 'busy');
        if (answer.state === 'busy') expectAbout(answer.remainingMs, leaseMs, harness, 'a lease');
      }
    },
  },
  {
    id: '8c',
    says: 'a settle that is sent again is answered ok and changes nothing',
    async run({ store }) {
      const { claim, settle } = single(store);
      for (const [name, ending] of endings) {
        claimed(await claim(name, 'owner'));
        for (let i = 0; i < 3; i++) assert.equal(await settle(name, 'owner', ending), 'ok', name);
      }
      claimed(await claim('uncounted', 'first'));
      await settle('uncounted', 'first', asReleased);
      claimed(await claim('uncounted', 'second'));
      for (let i = 0; i < 3; i++) assert.equal(await settle('uncounted', 'second', asUncounted), 'ok');
      assert.equal(claimed(await claim('uncounted', 'third')).attempt, 2, 'the attempt is given back once');
    },
  },
];

/** Claims and completes a key, again and again; `between` makes the record go, or does nothing and the claim is released instead. */
async function fenceGrows(harness: StoreHarness, between: (key: string) => unknown): Promise<void> {
  const { claim, settle } = single(harness.store);
  let last = 0;
  for (let round = 0; round < 4; round++) {
    const { fence } = claimed(await claim('fenced', `round ${round}`));
    assert.ok(Number.isSafeInteger(fence) && fence > last, `expected a fence above ${last}, got ${fence}`);
    last = fence;
    await settle('fenced', `round ${round}`, asReleased);
    await between(keyOf('fenced'));
  }
}
