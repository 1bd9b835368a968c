import assert from 'node:assert/strict';
import type { Entry, Journal } from '../../effects/journal.ts';
import type { DedupStore, StoreAdmin } from '../../store.ts';
import {
  adminOf,
  asCompleted,
  asParked,
  asReleased,
  asUncounted,
  type Clause,
  claimed,
  keyOf,
  leaseMs,
  retainMs,
  type StoreHarness,
  single,
  states,
} from './kit.ts';

/** What the test of a store that is a journal gives to each clause. */
export interface JournalHarness extends StoreHarness {
  readonly store: DedupStore & Journal & Partial<StoreAdmin>;
}

/** The verbs for one key, without the arrays. */
function journalOf(store: Journal) {
  return {
    async write(name: string | number, token: string, entry: string, state: Entry['state'] = 'done', text = `text of ${entry}`) {
      const settled = await store.writeEntries([{ key: keyOf(name), token, name: entry, state, text }]);
      assert.equal(settled.length, 1, 'one answer for one write');
      return settled[0]!;
    },
    async read(name: string | number, token: string) {
      const read = await store.readEntries([{ key: keyOf(name), token }]);
      assert.equal(read.length, 1, 'one answer for one claim');
      return read[0] === 'fenced' ? 'fenced' : sorted(read[0]!);
    },
  };
}

function sorted(entries: readonly Entry[]): Entry[] {
  return [...entries].sort((a, b) => (a.name < b.name ? -1 : 1));
}

const done = (name: string, text: string = `text of ${name}`): Entry => ({ name, state: 'done', text });

/** A claim of `a` by `owner` with an entry `x`. */
async function journaled(harness: JournalHarness) {
  claimed(await single(harness.store).claim('a', 'owner'));
  const { write, read } = journalOf(harness.store);
  assert.equal(await write('a', 'owner', 'x'), 'ok');
  return { ...single(harness.store), write, read };
}

/** After the record has gone, its key is claimed anew and must have no entries. */
function gone(id: string, how: string, make: (harness: JournalHarness) => Promise<void>, needs?: 'admin'): Clause<JournalHarness> {
  return {
    id,
    says: `a record that ${how} takes its entries along`,
    ...(needs && { needs }),
    async run(harness) {
      const { claim, read, write, settle } = await journaled(harness);
      await settle('a', 'owner', asReleased);
      await make(harness);
      assert.equal(claimed(await claim('a', 'next')).attempt, 1, 'a new record');
      assert.deepEqual(await read('a', 'next'), []);
      assert.equal(await write('a', 'next', 'y'), 'ok');
      await settle('a', 'next', asReleased);
      claimed(await claim('a', 'third'));
      assert.deepEqual(await read('a', 'third'), [done('y')]);
    },
  };
}

/** Whatever has become of the claim, the next one finds the entry. */
function kept(id: string, what: string, make: (harness: JournalHarness) => Promise<void>, needs?: 'admin'): Clause<JournalHarness> {
  return {
    id,
    says: `${what} keeps the entries`,
    ...(needs && { needs }),
    async run(harness) {
      const { claim, read, write, settle } = await journaled(harness);
      await make(harness);
      claimed(await claim('a', 'next'));
      assert.deepEqual(await read('a', 'next'), [done('x')]);
      assert.equal(await write('a', 'next', 'y'), 'ok');
      await settle('a', 'next', asReleased);
      claimed(await claim('a', 'third'));
      assert.deepEqual(await read('a', 'third'), [done('x'), done('y')]);
    },
  };
}

/** Contract 30 to 36. */
export const journalClauses: readonly Clause<JournalHarness>[] = [
  {
    id: '30a',
    says: 'every write and every read is answered, in the order asked',
    async run({ store }) {
      assert.deepEqual(await store.writeEntries([]), []);
      assert.deepEqual(await store.readEntries([]), []);
      for (const name of ['a', 'b', 'c']) claimed(await single(store).claim(name, `t ${name}`));
      const entry = { name: 'x', state: 'done', text: '1' } as const;
      const asked = ['t a', 'not b', 't c'].map((token, i) => ({ key: keyOf('abc'[i]!), token }));
      assert.deepEqual(await store.writeEntries(asked.map((claim) => ({ ...claim, ...entry, text: claim.token }))), ['ok', 'fenced', 'ok']);
      assert.deepEqual(await store.readEntries([...asked].reverse()), [[done('x', 't c')], 'fenced', [done('x', 't a')]]);
    },
  },
  {
    id: '30b',
    says: 'writes of one call act in their order',
    async run({ store }) {
      claimed(await single(store).claim('a', 'owner'));
      const claim = { key: keyOf('a'), token: 'owner', name: 'x' };
      const writes = [
        { ...claim, state: 'started', text: '1' },
        { ...claim, state: 'done', text: '2' },
        { ...claim, state: 'failed', text: '3' },
      ] as const;
      assert.deepEqual(await store.writeEntries(writes), ['ok', 'ok', 'ok']);
      assert.deepEqual(await journalOf(store).read('a', 'owner'), [done('x', '2')]);
    },
  },
  {
    id: '31a',
    says: 'a token that others have taken over from is fenced and changes nothing',
    async run(harness) {
      await states.orphaned(harness, 'a');
      claimed(await single(harness.store).claim('a', 'new owner'));
      const { write, read } = journalOf(harness.store);
      assert.equal(await write('a', 'new owner', 'x', 'started', 'of the new owner'), 'ok');
      assert.equal(await write('a', 'owner', 'x', 'done', 'of the zombie'), 'fenced');
      assert.equal(await write('a', 'owner', 'y'), 'fenced');
      assert.equal(await read('a', 'owner'), 'fenced');
      assert.deepEqual(await read('a', 'new owner'), [{ name: 'x', state: 'started', text: 'of the new owner' }]);
    },
  },
  ...(
    [
      ['completed', asCompleted],
      ['released', asReleased],
      ['parked', asParked],
    ] as const
  ).map(
    ([name, ending]): Clause<JournalHarness> => ({
      id: `31b ${name}`,
      says: 'a token that has settled is fenced',
      async run(harness) {
        const { settle, write, read } = await journaled(harness);
        assert.equal(await settle('a', 'owner', ending), 'ok');
        assert.equal(await write('a', 'owner', 'y'), 'fenced');
        assert.equal(await read('a', 'owner'), 'fenced');
      },
    }),
  ),
  {
    id: '31c',
    says: 'a claim whose lease has ended writes and reads until others take it',
    async run(harness) {
      const { write, read } = await journaled(harness);
      await harness.elapse(leaseMs + 1);
      assert.equal(await write('a', 'owner', 'y'), 'ok');
      assert.deepEqual(await read('a', 'owner'), [done('x'), done('y')]);
    },
  },
  {
    id: '31d',
    says: 'a key without a record is fenced, also for the token that it had',
    async run(harness) {
      const { write, read } = await journaled(harness);
      assert.equal(await write('unknown', 'owner', 'x'), 'fenced');
      assert.equal(await read('unknown', 'owner'), 'fenced');
      await harness.elapse(retainMs + 1 + (harness.precisionMs ?? 0));
      assert.equal(await write('a', 'owner', 'y'), 'fenced');
      assert.equal(await read('a', 'owner'), 'fenced');
    },
  },
  {
    id: '32a',
    says: 'done and failed are final; another write is answered ok and changes nothing',
    async run({ store }) {
      claimed(await single(store).claim('a', 'owner'));
      const { write, read } = journalOf(store);
      for (const final of ['done', 'failed'] as const) {
        assert.equal(await write('a', 'owner', final, final, 'first'), 'ok');
        for (const state of ['done', 'failed', 'started'] as const) assert.equal(await write('a', 'owner', final, state, 'second'), 'ok');
      }
      assert.deepEqual(await read('a', 'owner'), [done('done', 'first'), { name: 'failed', state: 'failed', text: 'first' }]);
    },
  },
  {
    id: '32b',
    says: 'started gives way to every other write',
    async run({ store }) {
      claimed(await single(store).claim('a', 'owner'));
      const { write, read } = journalOf(store);
      for (const state of ['done', 'failed', 'started'] as const) {
        assert.equal(await write('a', 'owner', state, 'started', 'first'), 'ok');
        assert.equal(await write('a', 'owner', state, state, 'second'), 'ok');
      }
      assert.deepEqual(
        await read('a', 'owner'),
        (['done', 'failed', 'started'] as const).map((state) => ({ name: state, state, text: 'second' })),
      );
    },
  },
  kept('33a', 'a release', async ({ store }) => assert.equal(await single(store).settle('a', 'owner', asReleased), 'ok')),
  kept('33b', 'a release that is not counted', async ({ store }) =>
    assert.equal(await single(store).settle('a', 'owner', asUncounted), 'ok'),
  ),
  kept('33c', 'a takeover', async (harness) => harness.elapse(leaseMs + 1)),
  kept(
    '33d',
    'parking and replay',
    async ({ store }) => {
      assert.equal(await single(store).settle('a', 'owner', asParked), 'ok');
      assert.equal(await adminOf(store).replay(keyOf('a')), true);
    },
    'admin',
  ),
  kept('33e', 'a record that lives longer by an extension', async (harness) => {
    const { extend } = single(harness.store);
    await harness.elapse(0.7 * retainMs);
    assert.equal(await extend('a', 'owner'), 'ok');
    await harness.elapse(0.7 * retainMs);
  }),
  kept('33f', 'a record that lives longer by its ending', async (harness) => {
    await harness.elapse(0.7 * retainMs);
    assert.equal(await single(harness.store).settle('a', 'owner', asReleased, 3 * retainMs), 'ok');
    await harness.elapse(2.5 * retainMs);
  }),
  gone('33g', 'has expired', async (harness) => harness.elapse(retainMs + 1 + (harness.precisionMs ?? 0))),
  gone('33h', 'was purged', async (harness) => {
    await harness.elapse(retainMs + 1 + (harness.precisionMs ?? 0));
    assert.equal(await harness.store.purge(10), 1);
  }),
  gone('33i', 'was forgotten', async ({ store }) => assert.equal(await adminOf(store).forget(keyOf('a')), true), 'admin'),
  {
    id: '33j',
    says: 'a purge keeps the entries of the records that it keeps',
    async run(harness) {
      const { claim, settle, write, read, extend } = await journaled(harness);
      await settle('a', 'owner', asReleased);
      await harness.elapse(retainMs / 2);
      claimed(await claim('b', 'owner'));
      await write('b', 'owner', 'x');
      await harness.elapse(retainMs / 2 + 1 + (harness.precisionMs ?? 0));
      assert.equal(await harness.store.purge(10), 1);
      assert.equal(await extend('b', 'owner'), 'ok');
      assert.deepEqual(await read('b', 'owner'), [done('x')]);
    },
  },
  {
    id: '34a',
    says: 'keys have journals of their own, and a claim reads what was written through another client',
    async run(harness) {
      const { claim, write, read } = await journaled(harness);
      claimed(await claim('b', 'owner'));
      assert.deepEqual(await read('b', 'owner'), []);
      await write('b', 'owner', 'x', 'failed', 'of b');
      const other = ((await harness.another?.()) ?? harness.store) as DedupStore & Journal;
      const entry = { key: keyOf('a'), token: 'owner', ...done('y') };
      assert.deepEqual(await other.writeEntries([entry]), ['ok']);
      assert.deepEqual(await read('a', 'owner'), [done('x'), done('y')]);
      assert.deepEqual(await journalOf(other).read('b', 'owner'), [{ name: 'x', state: 'failed', text: 'of b' }]);
    },
  },
  {
    id: '35a',
    says: 'text comes back as it was written: empty, NUL, quotes, all of Unicode, 64 KiB',
    async run({ store }) {
      claimed(await single(store).claim('a', 'owner'));
      const { write, read } = journalOf(store);
      const texts = ['', 'a\0b\0', `'"\\$1%_{}`, 'žluťoučký 🐎 \u{10ffff}\ufffe', '\r\n\t\x7f ', 'x'.repeat(65_536), '"🐎"'.repeat(10_000)];
      for (const [i, text] of texts.entries()) assert.equal(await write('a', 'owner', `${i}`, 'done', text), 'ok');
      const entries = await read('a', 'owner');
      assert.ok(entries !== 'fenced');
      for (const [i, { text }] of entries.entries()) assert.ok(text === texts[i], `text ${i} of ${text.length} characters differs`);
      assert.equal(entries.length, texts.length);
    },
  },
  {
    id: '35b',
    says: 'names that differ in any character are different names',
    async run({ store }) {
      claimed(await single(store).claim('a', 'owner'));
      const names = [
        'a',
        'A',
        'a ',
        ' a',
        '\u00e1',
        'a\u0301',
        'a/b',
        '$a',
        `a'"\\`,
        'constructor',
        '__proto__',
        '1',
        '01',
        '🐎'.repeat(200),
      ];
      names.push('x'.repeat(499), `${'x'.repeat(499)}y`);
      const { write, read } = journalOf(store);
      for (const [i, name] of names.entries()) assert.equal(await write('a', 'owner', name, 'done', `${i}`), 'ok');
      const entries = await read('a', 'owner');
      assert.deepEqual(entries, sorted(names.map((name, i) => done(name, `${i}`))));
    },
  },
  {
    id: '35c',
    says: 'a message has room for 1,000 entries',
    async run({ store }) {
      claimed(await single(store).claim('a', 'owner'));
      const entries = Array.from({ length: 1_000 }, (_, i) => done(`step ${i}`));
      const settled = await store.writeEntries(entries.map((entry) => ({ key: keyOf('a'), token: 'owner', ...entry })));
      assert.deepEqual(new Set(settled), new Set(['ok']));
      assert.deepEqual(await journalOf(store).read('a', 'owner'), sorted(entries));
    },
  },
  {
    id: '36a',
    says: 'what was written survives a crash of the store',
    needs: 'reopen',
    async run(harness) {
      await journaled(harness);
      const store = (await harness.reopen!()) as DedupStore & Journal;
      assert.deepEqual(await journalOf(store).read('a', 'owner'), [done('x')]);
    },
  },
  {
    id: '36b',
    says: 'a record that can’t be read is nobody’s claim: its journal is fenced, or throws',
    needs: 'corrupt',
    async run(harness) {
      const { write, read } = await journaled(harness);
      await harness.corrupt!(keyOf('a'));
      for (const verb of [() => write('a', 'owner', 'y'), () => read('a', 'owner')]) {
        const answer = await verb().catch(() => 'thrown');
        assert.ok(answer === 'fenced' || answer === 'thrown', `got ${JSON.stringify(answer)}`);
      }
    },
  },
];
