import assert from 'node:assert/strict';
import type { Answer } from '../../store.ts';
import {
  asCompleted,
  ask,
  asParked,
  asReleased,
  asUncounted,
  type Clause,
  claimed,
  expectAbout,
  expectState,
  fingerprintOf,
  keyOf,
  leaseMs,
  retainMs,
  single,
  stateNames,
  states,
} from './kit.ts';

/** Contract 1 to 4: asking for keys. */
export const claimClauses: readonly Clause[] = [
  {
    id: '1a',
    says: 'every verb answers each item, in the order asked',
    async run(harness) {
      const { store } = harness;
      await states.completed(harness, 'done');
      await states.parked(harness, 'parked');
      await states.claimed(harness, 'held');
      const answers = await store.claim([ask('done', 'x'), ask('new-1', 'x'), ask('held', 'x'), ask('parked', 'x'), ask('new-2', 'x')]);
      assert.deepEqual(
        answers.map((answer) => answer.state),
        ['completed', 'claimed', 'busy', 'parked', 'claimed'],
      );
      const holds = [
        { key: keyOf('new-1'), token: 'x', leaseMs },
        { key: keyOf('none'), token: 'x', leaseMs },
        { key: keyOf('new-2'), token: 'x', leaseMs },
      ];
      assert.deepEqual(await store.extend(holds), ['ok', 'fenced', 'ok']);
      const end = { token: 'x', retainMs, ...asCompleted };
      assert.deepEqual(
        await store.settle([
          { key: keyOf('none'), ...end },
          { key: keyOf('new-2'), ...end },
          { key: keyOf('held'), ...end },
        ]),
        ['fenced', 'ok', 'fenced'],
      );
    },
  },
  {
    id: '1b',
    says: 'of two asks for one key in one call, the second meets the claim of the first',
    async run({ store }) {
      const answers = await store.claim([ask('a', 'first'), ask('b', 'other'), ask('a', 'second'), ask('a', 'first')]);
      assert.deepEqual(
        answers.map((answer) => answer.state),
        ['claimed', 'claimed', 'busy', 'claimed'],
      );
      assert.deepEqual(answers[3], answers[0], 'the same token again is the same claim');
      const end = { key: keyOf('a'), token: 'first', retainMs };
      assert.deepEqual(
        await store.settle([
          { ...end, ...asReleased },
          { ...end, ...asCompleted },
        ]),
        ['ok', 'fenced'],
      );
      assert.equal(claimed(await single(store).claim('a', 'third')).attempt, 2);
    },
  },
  {
    id: '1c',
    says: 'an empty array is answered by an empty array',
    async run({ store }) {
      assert.deepEqual(await store.claim([]), []);
      assert.deepEqual(await store.settle([]), []);
      assert.deepEqual(await store.extend([]), []);
    },
  },
  {
    id: '1d',
    says: 'a batch of 1,000 is claimed, extended and settled in one call each',
    async run({ store }) {
      const asks = Array.from({ length: 1_000 }, (_, i) => ask(`big-${i}`, `token-${i}`));
      const fences = (await store.claim(asks)).map((answer) => claimed(answer).fence);
      assert.equal(new Set(fences).size >= 1, true);
      assert.ok((await store.extend(asks)).every((answer) => answer === 'ok'));
      assert.ok(
        (await store.settle(asks.map(({ key, token }, i) => ({ key, token, retainMs, as: 'completed', result: `r${i}` })))).every(
          (answer) => answer === 'ok',
        ),
      );
      const again = await store.claim(asks.map((each) => ({ ...each, token: 'again' })));
      again.forEach((answer, i) => assert.equal(answer.state === 'completed' && answer.result, `r${i}`));
    },
  },
  {
    id: '2a',
    says: 'of 16 concurrent claims for each of 250 keys exactly one is answered claimed, the others busy',
    async run(harness) {
      const clients = await Promise.all(Array.from({ length: 16 }, () => harness.another?.() ?? harness.store));
      const names = Array.from({ length: 250 }, (_, i) => `race-${i}`);
      const all = await Promise.all(
        clients.map((client, c) => Promise.all(names.map(async (name) => (await client.claim([ask(name, `client-${c}`)]))[0]!))),
      );
      for (const [index, name] of names.entries())
        expectOneWinner(
          all.map((answers) => answers[index]!),
          name,
        );
    },
  },
  {
    id: '2b',
    says: 'concurrent batches of the same keys in different orders neither deadlock nor share a key',
    async run(harness) {
      const clients = await Promise.all(Array.from({ length: 16 }, () => harness.another?.() ?? harness.store));
      const size = 100;
      const all = await Promise.all(
        clients.map(async (client, c) => {
          const names = Array.from({ length: size }, (_, i) => (c % 2 ? size - 1 - i : (i + c * 7) % size));
          const answers = await client.claim(names.map((name) => ask(name, `client-${c}`)));
          return new Map(names.map((name, i) => [name, answers[i]!]));
        }),
      );
      for (let name = 0; name < size; name++)
        expectOneWinner(
          all.map((answers) => answers.get(name)!),
          `key ${name}`,
        );
    },
  },
  {
    id: '3a',
    says: 'a completed record is answered completed, with its result and its age',
    async run(harness) {
      const { claim, settle } = single(harness.store);
      await claim('a', 'owner');
      assert.equal(await settle('a', 'owner', { as: 'completed', result: '{"charge":7}' }), 'ok');
      await harness.elapse(5_000);
      for (const token of ['owner', 'other', 'third']) {
        const answer = await claim('a', token);
        expectState(answer, 'completed');
        if (answer.state !== 'completed') return;
        assert.equal(answer.result, '{"charge":7}', 'the result that was stored');
        expectAbout(answer.ageMs, 5_000, harness, 'an age');
      }
    },
  },
  {
    id: '3b',
    says: 'completed without a result is answered without one; an empty result is a result',
    async run({ store }) {
      const { claim, settle } = single(store);
      await claim('none', 'owner');
      await settle('none', 'owner', asCompleted);
      await claim('empty', 'owner');
      await settle('empty', 'owner', { as: 'completed', result: '' });
      const [none, empty] = [await claim('none', 'x'), await claim('empty', 'x')];
      assert.equal(none.state === 'completed' && none.result, undefined);
      assert.equal(empty.state === 'completed' && empty.result, '');
    },
  },
  {
    id: '3c',
    says: 'results and reasons come back as they went in: NUL, emoji, escapes, quotes, 100 kB',
    async run({ store }) {
      const { claim, settle } = single(store);
      const texts = [
        'a\u0000b',
        '👩‍👩‍👧‍👦 é é',
        '"\\ud800" \\u0000',
        `'; drop table records; -- $1 ? %s {} []`,
        '\r\n\t\u2028',
        'x'.repeat(100_000),
        '€'.repeat(30_000),
      ];
      for (const [i, text] of texts.entries()) {
        await claim(`done-${i}`, 'owner');
        assert.equal(await settle(`done-${i}`, 'owner', { as: 'completed', result: text }), 'ok');
        const done = await claim(`done-${i}`, 'x');
        assert.equal(done.state === 'completed' && done.result, text, `result ${JSON.stringify(text.slice(0, 40))}`);
        await claim(`parked-${i}`, 'owner');
        assert.equal(await settle(`parked-${i}`, 'owner', { as: 'parked', reason: text, detail: text, label: text }), 'ok');
        const parked = await claim(`parked-${i}`, 'x');
        assert.equal(
          parked.state === 'parked' && parked.reason === text && parked.detail === text,
          true,
          `reason ${JSON.stringify(text.slice(0, 40))}`,
        );
      }
    },
  },
  ...stateNames.map(
    (state): Clause => ({
      id: `4a ${state}`,
      says: 'the same key with another fingerprint is a mismatch, and changes nothing',
      async run(harness) {
        const { claim, settle } = single(harness.store);
        await states[state](harness, 'a');
        for (const token of ['owner', 'other']) {
          expectState(await claim('a', token, { fingerprint: fingerprintOf('another payload') }), 'mismatch', `asked by ${token}`);
        }
        const expected = { claimed: 'busy', orphaned: 'claimed', released: 'claimed', completed: 'completed', parked: 'parked' } as const;
        const answer: Answer = await claim('a', 'second');
        expectState(answer, expected[state], 'the right payload afterwards');
        if (answer.state === 'claimed') assert.equal(answer.attempt, 2, 'a mismatch is no attempt');
        if (state === 'claimed') assert.equal(await settle('a', 'owner', asCompleted), 'ok', 'the owner is still the owner');
      },
    }),
  ),
  {
    id: '4b',
    says: 'fingerprints are compared only where both are not empty',
    async run({ store }) {
      const { claim, settle } = single(store);
      await claim('without', 'owner', { fingerprint: '' });
      expectState(await claim('without', 'other'), 'busy');
      await settle('without', 'owner', asCompleted);
      expectState(await claim('without', 'other'), 'completed');
      await claim('with', 'owner');
      expectState(await claim('with', 'other', { fingerprint: '' }), 'busy');
      await settle('with', 'owner', asUncounted);
      claimed(await claim('with', 'other', { fingerprint: '' }));
      await settle('with', 'other', asParked);
      expectState(await claim('with', 'third', { fingerprint: '' }), 'parked');
    },
  },
];

function expectOneWinner(answers: readonly Answer[], what: string): void {
  const winners = answers.filter((answer) => answer.state === 'claimed').length;
  const busy = answers.filter((answer) => answer.state === 'busy').length;
  assert.deepEqual({ winners, busy }, { winners: 1, busy: answers.length - 1 }, what);
}
