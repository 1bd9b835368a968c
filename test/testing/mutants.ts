import { memoryStore } from '../../adapters/stores/memory.ts';
import type { Answer, Ask, DedupStore, End, Key, StoreAdmin } from '../../src/store.ts';
import type { StoreHarness } from '../../src/testing/index.ts';

type Store = DedupStore & StoreAdmin;

/** The good store that mutants wrap, with what they need to know to be wrong in a credible way. */
export interface Base {
  readonly store: Store;
  readonly now: () => number;
  /** Who was given each key last. */
  readonly owners: Map<Key, Ask>;
  /** When that was. */
  readonly claimedAt: Map<Key, number>;
}

/** A store that is wrong in one way, and the clause that must notice. */
export interface Mutant {
  readonly name: string;
  readonly breaks: string;
  mutate(base: Base): Partial<Store>;
}

export function baseHarness(mutate: (base: Base) => Partial<Store> = () => ({}), change: Partial<StoreHarness> = {}): StoreHarness {
  let now = 0;
  const corrupted = new Set<Key>();
  const clean = memoryStore({ now: () => now });
  const owners = new Map<Key, Ask>();
  const claimedAt = new Map<Key, number>();
  const base: Store = {
    ...clean,
    async claim(asks) {
      const answers = await clean.claim(asks);
      return asks.map((ask, i) => {
        if (corrupted.has(ask.key)) return { state: 'corrupt', detail: 'damaged by the test' };
        if (answers[i]!.state === 'claimed') {
          owners.set(ask.key, ask);
          claimedAt.set(ask.key, now);
        }
        return answers[i]!;
      });
    },
    settle: async (ends) => (ends.some(({ key }) => corrupted.has(key)) ? ends.map(() => 'fenced') : clean.settle(ends)),
    extend: async (holds) => (holds.some(({ key }) => corrupted.has(key)) ? holds.map(() => 'fenced') : clean.extend(holds)),
  };
  const store = { ...base, ...mutate({ store: base, now: () => now, owners, claimedAt }) };
  return { store, elapse: (ms) => void (now += ms), reopen: async () => store, corrupt: (key) => void corrupted.add(key), ...change };
}

/** Changes each answer of `claim`. */
const answers = (change: (answer: Answer, ask: Ask, base: Base) => Answer) => (base: Base) => ({
  claim: async (asks: readonly Ask[]) => (await base.store.claim(asks)).map((answer, i) => change(answer, asks[i]!, base)),
});

/** Changes each ask. */
const asks = (change: (ask: Ask) => Ask) => ({ store }: Base) => ({ claim: (all: readonly Ask[]) => store.claim(all.map(change)) });

/** Changes each end. */
const ends = (change: (end: End, base: Base) => End) => (base: Base) => ({ settle: (all: readonly End[]) => base.store.settle(all.map((end) => change(end, base))) });

/** Makes a key absent before it is asked for, if `when` says so. */
const vanishing = (when: (base: Base, key: Key) => boolean) => (base: Base): Partial<Store> => ({
  async claim(all) {
    for (const { key } of all) {
      const owner = base.owners.get(key);
      if (!owner || !when(base, key)) continue;
      await base.store.settle([{ key, token: owner.token, retainMs: 0, as: 'released', counted: true }]);
      await base.store.forget(key);
      base.owners.delete(key);
    }
    return base.store.claim(all);
  },
});

const retentionPassed = ({ now, claimedAt, owners }: Base, key: Key) => now() > claimedAt.get(key)! + owners.get(key)!.retainMs;

export const mutants: readonly Mutant[] = [
  { name: 'answers in the wrong order', breaks: '1a', mutate: ({ store }) => ({ claim: async (all) => [...(await store.claim(all))].reverse() }) },
  {
    name: 'gives both of two asks in one batch the claim',
    breaks: '1b',
    mutate: answers((answer, ask, { owners }) => (answer.state === 'busy' && owners.get(ask.key) !== ask ? { state: 'claimed', fence: 99, attempt: 1, orphaned: false } : answer)),
  },
  {
    name: 'throws for an empty array',
    breaks: '1c',
    mutate: ({ store }) => ({ claim: async (all) => (all.length > 0 ? store.claim(all) : Promise.reject(new Error('syntax error near "()"'))) }),
  },
  {
    name: 'has a limit of 999 parameters',
    breaks: '1d',
    mutate: ({ store }) => ({ settle: async (all) => (all.length < 999 ? store.settle(all) : Promise.reject(new Error('too many variables'))) }),
  },
  ...(['2a', '2b'] as const).map((breaks): Mutant => ({
    name: `looks first and claims afterwards (${breaks})`,
    breaks,
    mutate: ({ store }) => ({
      async claim(all) {
        const found = await Promise.all(all.map(({ key }) => store.inspect(key)));
        const result = await store.claim(all);
        return result.map((answer, i) => (found[i] ? answer : { state: 'claimed', fence: 1, attempt: 1, orphaned: false }));
      },
    }),
  })),
  { name: 'loses the result', breaks: '3a', mutate: ends((end) => (end.as === 'completed' ? { ...end, result: undefined } : end)) },
  { name: 'takes an empty result for none', breaks: '3b', mutate: ends((end) => (end.as === 'completed' ? { ...end, result: end.result || undefined } : end)) },
  { name: 'cuts results at NUL', breaks: '3c', mutate: ends((end) => (end.as === 'completed' ? { ...end, result: end.result?.split('\0')[0] } : end)) },
  { name: 'cuts results at 64 kB', breaks: '3c', mutate: ends((end) => (end.as === 'completed' ? { ...end, result: end.result?.slice(0, 65_535) } : end)) },
  ...(['claimed', 'orphaned', 'released', 'completed', 'parked'] as const).map((state): Mutant => ({
    name: `ignores a mismatch with a record that is ${state}`,
    breaks: `4a ${state}`,
    mutate: ({ store, owners, claimedAt, now }) => ({
      async claim(all) {
        const views = await Promise.all(all.map(({ key }) => store.inspect(key)));
        return store.claim(
          all.map((ask, i) => {
            const view = views[i];
            const over = view?.state === 'claimed' && now() >= claimedAt.get(ask.key)! + owners.get(ask.key)!.leaseMs;
            return view && (over ? 'orphaned' : view.state) === state ? { ...ask, fingerprint: '' } : ask;
          }),
        );
      },
    }),
  })),
  { name: 'compares empty fingerprints too', breaks: '4b', mutate: asks((ask) => ({ ...ask, fingerprint: ask.fingerprint || 'none' })) },
  { name: 'answers busy as completed', breaks: '5a', mutate: answers((answer) => (answer.state === 'busy' ? { state: 'completed', ageMs: 0 } : answer)) },
  { name: 'never ends a lease', breaks: '5a', mutate: asks((ask) => ({ ...ask, leaseMs: 1e12 })) },
  {
    name: 'fences an owner whose lease has ended though nobody took over',
    breaks: '5b',
    mutate: ({ store, owners, claimedAt, now }) => ({
      settle: (all) =>
        store.settle(all.map((end) => (now() > (claimedAt.get(end.key) ?? 0) + (owners.get(end.key)?.leaseMs ?? 0) ? { ...end, token: 'nobody' } : end))),
    }),
  },
  {
    name: 'adds the extension to the old lease',
    breaks: '5c',
    mutate: ({ store, owners, claimedAt, now }) => ({
      extend: (all) =>
        store.extend(all.map((hold) => ({ ...hold, leaseMs: hold.leaseMs + Math.max(0, (claimedAt.get(hold.key) ?? 0) + (owners.get(hold.key)?.leaseMs ?? 0) - now()) }))),
    }),
  },
  { name: 'always answers the same fence', breaks: '6a', mutate: answers((answer) => (answer.state === 'claimed' ? { ...answer, fence: 1 } : answer)) },
  ...(['6b', '6c', '6d'] as const).map((breaks): Mutant => ({
    name: `counts fences in the record, so they start anew with it (${breaks})`,
    breaks,
    mutate: answers((answer) => (answer.state === 'claimed' ? { ...answer, fence: answer.attempt } : answer)),
  })),
  { name: 'ignores the token on settle', breaks: '7a', mutate: ends((end, { owners }) => ({ ...end, token: owners.get(end.key)?.token ?? end.token })) },
  {
    name: 'ignores the token on extend',
    breaks: '7a',
    mutate: ({ store, owners }) => ({ extend: (all) => store.extend(all.map((hold) => ({ ...hold, token: owners.get(hold.key)?.token ?? hold.token }))) }),
  },
  {
    name: "lets a zombie overwrite its successor's result",
    breaks: '7b completed',
    mutate(base) {
      const results = new Map<Key, string | undefined>();
      return {
        async settle(all) {
          for (const end of all) if (end.as === 'completed') results.set(end.key, end.result);
          return base.store.settle(all);
        },
        ...answers((answer, ask) => (answer.state === 'completed' ? { ...answer, result: results.get(ask.key) } : answer))(base),
      };
    },
  },
  {
    name: 'lets a zombie take the successor\'s attempt back',
    breaks: '7b released',
    mutate(base) {
      const back = new Map<Key, number>();
      return {
        async settle(all) {
          const settled = await base.store.settle(all);
          for (const [i, end] of all.entries()) if (settled[i] === 'fenced' && end.as === 'released' && !end.counted) back.set(end.key, 1);
          return settled;
        },
        ...answers((answer, ask) => (answer.state === 'claimed' ? { ...answer, attempt: answer.attempt - (back.get(ask.key) ?? 0) } : answer))(base),
      };
    },
  },
  {
    name: 'deletes a parked record for any token that releases',
    breaks: '7b parked',
    mutate: ({ store }) => ({
      async settle(all) {
        for (const { key, as } of all) if (as === 'released' && (await store.inspect(key))?.state === 'parked') await store.forget(key);
        return store.settle(all);
      },
    }),
  },
  {
    name: 'answers ok for a key that it does not know',
    breaks: '7c',
    mutate: ({ store }) => ({ settle: async (all) => Promise.all(all.map(async (end) => ((await store.inspect(end.key)) ? (await store.settle([end]))[0]! : 'ok'))) }),
  },
  ...(['completed', 'released', 'parked'] as const).map((state): Mutant => ({
    name: `extends a claim that has ended: ${state}`,
    breaks: `7d ${state}`,
    mutate: ({ store, owners }) => ({
      extend: async (all) =>
        Promise.all(all.map(async (hold) => ((await store.inspect(hold.key))?.state === state && owners.get(hold.key)?.token === hold.token ? 'ok' : (await store.extend([hold]))[0]!))),
    }),
  })),
  {
    name: 'answers a claim that is sent again as busy',
    breaks: '8a',
    mutate(base) {
      const known = new Set<string>();
      return {
        claim: async (all) =>
          (await base.store.claim(all)).map((answer, i) => {
            const again = known.has(all[i]!.token + all[i]!.key);
            known.add(all[i]!.token + all[i]!.key);
            return again && answer.state === 'claimed' ? { state: 'busy', remainingMs: 1 } : answer;
          }),
      };
    },
  },
  {
    name: 'does not renew the lease of a claim that is sent again',
    breaks: '8b',
    mutate({ store, owners }) {
      const given = new Map<string, Answer>();
      return {
        async claim(all) {
          const result: Answer[] = [];
          for (const ask of all) {
            const known = owners.get(ask.key)?.token === ask.token ? given.get(ask.key + ask.token) : undefined;
            const answer = known && (await store.inspect(ask.key))?.state === 'claimed' ? known : (await store.claim([ask]))[0]!;
            if (answer.state === 'claimed') given.set(ask.key + ask.token, answer);
            result.push(answer);
          }
          return result;
        },
      };
    },
  },
  {
    name: 'fences a settle that is sent again',
    breaks: '8c',
    mutate({ store }) {
      const done = new Set<string>();
      return {
        settle: async (all) =>
          (await store.settle(all)).map((settled, i) => {
            const id = all[i]!.key + all[i]!.token;
            const again = done.has(id);
            if (settled === 'ok') done.add(id);
            return again ? 'fenced' : settled;
          }),
      };
    },
  },
  { name: 'does not count attempts', breaks: '9a', mutate: answers((answer) => (answer.state === 'claimed' ? { ...answer, attempt: 1 } : answer)) },
  { name: 'does not tell orphans', breaks: '9a', mutate: answers((answer) => (answer.state === 'claimed' ? { ...answer, orphaned: false } : answer)) },
  { name: 'forgets a dead claim with its lease', breaks: '9a', mutate: asks((ask) => ({ ...ask, retainMs: ask.leaseMs })) },
  { name: 'counts an uncounted release', breaks: '9b', mutate: ends((end) => (end.as === 'released' ? { ...end, counted: true } : end)) },
  { name: 'forgets the attempts of a parked record', breaks: '9c', mutate: answers((answer) => (answer.state === 'parked' ? { ...answer, attempts: 1 } : answer)) },
  {
    name: 'lets a released key wait for its lease',
    breaks: '10a',
    mutate: ({ store }) => ({ settle: async (all) => Promise.all(all.map(async (end) => (end.as === 'released' ? 'ok' : (await store.settle([end]))[0]!))) }),
  },
  { name: 'loses the reason for parking', breaks: '10b', mutate: ends((end) => (end.as === 'parked' ? { ...end, reason: '' } : end)) },
  { name: 'parks by releasing', breaks: '10b', mutate: ends((end) => (end.as === 'parked' ? { ...end, as: 'released', counted: true } : end)) },
  { name: 'never expires what was settled', breaks: '11a completed', mutate: ends((end) => ({ ...end, retainMs: 1e12 })) },
  { name: 'never expires a dead claim', breaks: '11a claimed', mutate: asks((ask) => ({ ...ask, retainMs: 1e12 })) },
  ...(['released', 'parked'] as const).map((state): Mutant => ({
    name: `remembers what was ${state} for the lease only`,
    breaks: `11a ${state}`,
    mutate: ends((end, { owners }) => (end.as === state ? { ...end, retainMs: owners.get(end.key)?.leaseMs ?? 0 } : end)),
  })),
  {
    name: 'takes the token of an expired claim for current',
    breaks: '11b',
    mutate: ({ store, owners }) => ({
      settle: async (all) => (await store.settle(all)).map((settled, i) => (owners.get(all[i]!.key)?.token === all[i]!.token ? 'ok' : settled)),
    }),
  },
  {
    name: 'counts retention from the claim',
    breaks: '11c',
    mutate: ends((end, { owners, claimedAt, now }) => ({ ...end, retainMs: Math.max(0, (claimedAt.get(end.key) ?? 0) + (owners.get(end.key)?.retainMs ?? 0) - now()) })),
  },
  { name: 'expires a claim under its running lease', breaks: '11d', mutate: vanishing((base, key) => retentionPassed(base, key)) },
  {
    name: 'does not take an extension for a write',
    breaks: '11e',
    mutate: vanishing((base, key) => retentionPassed(base, key)),
  },
  { name: 'purges without a limit', breaks: '12a', mutate: ({ store }) => ({ purge: () => store.purge(1e9) }) },
  { name: 'answers the limit, not what was purged', breaks: '12a', mutate: ({ store }) => ({ purge: async (limit) => (await store.purge(limit), limit) }) },
  {
    name: 'purges live claims',
    breaks: '12b',
    mutate: ({ store, owners }) => ({
      async purge(limit) {
        for (const { key, token } of owners.values()) {
          if ((await store.inspect(key))?.state === 'claimed') await store.settle([{ key, token, retainMs: 0, as: 'released', counted: true }]);
        }
        return store.purge(limit);
      },
    }),
  },
  {
    name: 'purges fresh completed records',
    breaks: '12b',
    mutate: ({ store, owners }) => ({
      async purge(limit) {
        for (const key of owners.keys()) if ((await store.inspect(key))?.state === 'completed') await store.forget(key);
        return store.purge(limit);
      },
    }),
  },
  {
    name: "ends leases by the caller's clock",
    breaks: '13a',
    mutate(base) {
      const until = new Map<Key, number>();
      return answers((answer, ask) => {
        if (answer.state === 'claimed') until.set(ask.key, Date.now() + ask.leaseMs);
        return answer.state === 'busy' && Date.now() > until.get(ask.key)! ? { state: 'claimed', fence: 99, attempt: 2, orphaned: true } : answer;
      })(base);
    },
  },
  { name: 'takes a corrupt record for absent', breaks: '15a', mutate: answers((answer) => (answer.state === 'corrupt' ? { state: 'claimed', fence: 99, attempt: 1, orphaned: false } : answer)) },
  { name: 'shows the token to people', breaks: 'admin a', mutate: ({ store, owners }) => ({ inspect: async (key) => ({ ...(await store.inspect(key))!, token: owners.get(key)?.token }) }) },
  { name: 'lists the newest parked records first', breaks: 'admin b', mutate: ({ store }) => ({ listParked: async (page) => [...(await store.listParked(page))].reverse() }) },
  {
    name: 'lists parked records by key',
    breaks: 'admin b',
    mutate: ({ store }) => ({
      async listParked({ limit, after = '' }) {
        const all = await store.listParked({ limit: 1e9 });
        return all.toSorted((a, b) => (a.key < b.key ? -1 : 1)).filter(({ key }) => key > after).slice(0, limit);
      },
    }),
  },
  {
    name: 'replays with the attempts of before',
    breaks: 'admin c',
    mutate: (base) => {
      const replayed = new Set<Key>();
      return {
        replay: async (key) => (await base.store.replay(key)) && Boolean(replayed.add(key)),
        ...answers((answer, ask) => (answer.state === 'claimed' && replayed.has(ask.key) ? { ...answer, attempt: answer.attempt + 1 } : answer))(base),
      };
    },
  },
  { name: 'replays by forgetting, whatever the state', breaks: 'admin c', mutate: ({ store }) => ({ replay: (key) => store.forget(key) }) },
  {
    name: 'forgets a live claim',
    breaks: 'admin d',
    mutate: ({ store, owners }) => ({
      async forget(key) {
        const owner = owners.get(key);
        if (owner) await store.settle([{ key, token: owner.token, retainMs: 1, as: 'released', counted: true }]);
        return store.forget(key);
      },
    }),
  },
  {
    name: 'counts expired records',
    breaks: 'admin e',
    mutate({ store }) {
      let most = { claimed: 0, released: 0, completed: 0, parked: 0 };
      return {
        async stats() {
          const stats = await store.stats();
          if (stats.claimed >= most.claimed) most = stats;
          return most;
        },
      };
    },
  },
];
