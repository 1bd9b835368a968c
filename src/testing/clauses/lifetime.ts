import assert from 'node:assert/strict';
import {
  asCompleted,
  asParked,
  asReleased,
  asUncounted,
  type Clause,
  claimed,
  expectState,
  leaseMs,
  retainMs,
  single,
  stateNames,
  states,
} from './kit.ts';

/** Contract 9 to 11: attempts, and how long a record is remembered. */
export const lifetimeClauses: readonly Clause[] = [
  {
    id: '9a',
    says: 'attempt counts the claims of a key, those of dead owners included; orphaned tells a takeover',
    async run(harness) {
      const { claim, settle } = single(harness.store);
      const told = [claimed(await claim('a', 't1'))];
      await settle('a', 't1', asReleased);
      told.push(claimed(await claim('a', 't2')));
      await harness.elapse(leaseMs + 1);
      told.push(claimed(await claim('a', 't3')));
      await harness.elapse(leaseMs + 1);
      told.push(claimed(await claim('a', 't4')));
      await settle('a', 't4', asReleased);
      told.push(claimed(await claim('a', 't5')));
      assert.deepEqual(
        told.map(({ attempt, orphaned }) => [attempt, orphaned]),
        [
          [1, false],
          [2, false],
          [3, true],
          [4, true],
          [5, false],
        ],
      );
    },
  },
  {
    id: '9b',
    says: 'a release that is not counted gives its attempt back',
    async run({ store }) {
      const { claim, settle } = single(store);
      const attempts: number[] = [];
      for (const [i, ending] of [asUncounted, asUncounted, asReleased, asUncounted, asReleased, asReleased].entries()) {
        attempts.push(claimed(await claim('a', `t${i}`)).attempt);
        await settle('a', `t${i}`, ending);
      }
      assert.deepEqual(attempts, [1, 1, 1, 2, 2, 3]);
    },
  },
  {
    id: '9c',
    says: 'a parked record tells its attempts',
    async run(harness) {
      const { claim, settle } = single(harness.store);
      await states.released(harness, 'a');
      await claim('a', 'second');
      await settle('a', 'second', asParked);
      const answer = await claim('a', 'third');
      assert.equal(answer.state === 'parked' && answer.attempts, 2);
    },
  },
  {
    id: '10a',
    says: 'a released key can be claimed at once',
    async run(harness) {
      await states.released(harness, 'a');
      const answer = claimed(await single(harness.store).claim('a', 'second'));
      assert.equal(answer.orphaned, false);
    },
  },
  {
    id: '10b',
    says: 'a parked key is answered parked, with its reason, to everybody, its last owner too',
    async run(harness) {
      await states.parked(harness, 'a');
      await harness.elapse(leaseMs + 1);
      for (const token of ['owner', 'other']) {
        assert.deepEqual(await single(harness.store).claim('a', token), {
          state: 'parked',
          reason: 'max-attempts',
          detail: 'Error: 7 of 7',
          attempts: 1,
        });
      }
    },
  },
  ...stateNames
    .filter((state) => state !== 'orphaned')
    .map(
      (state): Clause => ({
        id: `11a ${state}`,
        says: 'a record is remembered until its retention ends, and absent from then on, though nobody has purged it',
        async run(harness) {
          const slack = harness.precisionMs ?? 0;
          for (const [name, ms, remembered] of [
            ['before', retainMs - 1 - slack, true],
            ['after', retainMs + 1 + slack, false],
          ] as const) {
            await states[state](harness, name);
            await harness.elapse(ms);
            const answer = await single(harness.store).claim(name, 'other');
            if (!remembered)
              assert.deepEqual(
                { ...claimed(answer), fence: 0 },
                { state: 'claimed', fence: 0, attempt: 1, orphaned: false },
                `${name} the end`,
              );
            else if (state === 'completed' || state === 'parked') expectState(answer, state, `${name} the end`);
            else assert.equal(claimed(answer).attempt, 2, `${name} the end`);
          }
        },
      }),
    ),
  {
    id: '11b',
    says: 'the token of an expired claim is fenced',
    async run(harness) {
      const { claim, settle, extend } = single(harness.store);
      claimed(await claim('a', 'owner'));
      await harness.elapse(retainMs + 1 + (harness.precisionMs ?? 0));
      assert.equal(await extend('a', 'owner'), 'fenced');
      for (const ending of [asCompleted, asReleased, asParked]) assert.equal(await settle('a', 'owner', ending), 'fenced');
      assert.equal(claimed(await claim('a', 'other')).attempt, 1);
    },
  },
  {
    id: '11c',
    says: 'retention runs from the last write, and is that of the last ask or end',
    async run(harness) {
      const { claim, settle } = single(harness.store);
      claimed(await claim('longer', 'owner', { retainMs: leaseMs }));
      claimed(await claim('shorter', 'owner'));
      await harness.elapse(leaseMs / 2);
      assert.equal(await settle('longer', 'owner', asCompleted, retainMs), 'ok');
      assert.equal(await settle('shorter', 'owner', asCompleted, leaseMs), 'ok');
      await harness.elapse(leaseMs + 1 + (harness.precisionMs ?? 0));
      claimed(await claim('shorter', 'other'));
      await harness.elapse(retainMs - 2 * leaseMs);
      expectState(await claim('longer', 'other'), 'completed');
      await harness.elapse(2 * leaseMs);
      claimed(await claim('longer', 'other'));
    },
  },
  {
    id: '11d',
    says: 'a record does not expire while its lease runs, however often it is extended',
    async run(harness) {
      const { claim, extend } = single(harness.store);
      claimed(await claim('a', 'owner', { retainMs: leaseMs }));
      for (let i = 0; i < 5; i++) {
        await harness.elapse(leaseMs - 1_000);
        assert.equal(await harness.store.purge(10), 0);
        expectState(await claim('a', 'other'), 'busy');
        assert.equal(await extend('a', 'owner'), 'ok', `extension ${i}`);
      }
      assert.equal(await extend('a', 'owner', 3 * leaseMs), 'ok');
      await harness.elapse(2 * leaseMs);
      assert.equal(await harness.store.purge(10), 0);
      expectState(await claim('a', 'other'), 'busy', 'a lease longer than the retention');
    },
  },
  {
    id: '11e',
    says: 'extend is a write: the record, and its attempts, are remembered for their retention from then on',
    async run(harness) {
      const { claim, extend } = single(harness.store);
      claimed(await claim('a', 'owner'));
      await harness.elapse(retainMs - leaseMs);
      assert.equal(await extend('a', 'owner'), 'ok');
      await harness.elapse(3 * leaseMs);
      assert.equal(claimed(await claim('a', 'other')).attempt, 2);
    },
  },
];
