import type { Key } from '../../../src/store.ts';
import { answers, asks, ends, type Mutant, retentionPassed, vanishing } from './base.ts';

/** Wrong about attempts, retention, purging, time, and what people see. */
export const lifetimeMutants: readonly Mutant[] = [
  {
    name: 'does not count attempts',
    breaks: '9a',
    mutate: answers((answer) => (answer.state === 'claimed' ? { ...answer, attempt: 1 } : answer)),
  },
  {
    name: 'does not tell orphans',
    breaks: '9a',
    mutate: answers((answer) => (answer.state === 'claimed' ? { ...answer, orphaned: false } : answer)),
  },
  { name: 'forgets a dead claim with its lease', breaks: '9a', mutate: asks((ask) => ({ ...ask, retainMs: ask.leaseMs })) },
  { name: 'counts an uncounted release', breaks: '9b', mutate: ends((end) => (end.as === 'released' ? { ...end, counted: true } : end)) },
  {
    name: 'forgets the attempts of a parked record',
    breaks: '9c',
    mutate: answers((answer) => (answer.state === 'parked' ? { ...answer, attempts: 1 } : answer)),
  },
  {
    name: 'lets a released key wait for its lease',
    breaks: '10a',
    mutate: ({ store }) => ({
      settle: async (all) => Promise.all(all.map(async (end) => (end.as === 'released' ? 'ok' : (await store.settle([end]))[0]!))),
    }),
  },
  { name: 'loses the reason for parking', breaks: '10b', mutate: ends((end) => (end.as === 'parked' ? { ...end, reason: '' } : end)) },
  {
    name: 'parks by releasing',
    breaks: '10b',
    mutate: ends((end) => (end.as === 'parked' ? { ...end, as: 'released', counted: true } : end)),
  },
  { name: 'never expires what was settled', breaks: '11a completed', mutate: ends((end) => ({ ...end, retainMs: 1e12 })) },
  { name: 'never expires a dead claim', breaks: '11a claimed', mutate: asks((ask) => ({ ...ask, retainMs: 1e12 })) },
  ...(['released', 'parked'] as const).map(
    (state): Mutant => ({
      name: `remembers what was ${state} for the lease only`,
      breaks: `11a ${state}`,
      mutate: ends((end, { owners }) => (end.as === state ? { ...end, retainMs: owners.get(end.key)?.leaseMs ?? 0 } : end)),
    }),
  ),
  {
    name: 'takes the token of an expired claim for current',
    breaks: '11b',
    mutate: ({ store, owners }) => ({
      settle: async (all) =>
        (await store.settle(all)).map((settled, i) => (owners.get(all[i]!.key)?.token === all[i]!.token ? 'ok' : settled)),
    }),
  },
  {
    name: 'counts retention from the claim',
    breaks: '11c',
    mutate: ends((end, { owners, claimedAt, now }) => ({
      ...end,
      retainMs: Math.max(0, (claimedAt.get(end.key) ?? 0) + (owners.get(end.key)?.retainMs ?? 0) - now()),
    })),
  },
  { name: 'expires a claim under its running lease', breaks: '11d', mutate: vanishing((base, key) => retentionPassed(base, key)) },
  {
    name: 'does not take an extension for a write',
    breaks: '11e',
    mutate: vanishing((base, key) => retentionPassed(base, key)),
  },
  { name: 'purges without a limit', breaks: '12a', mutate: ({ store }) => ({ purge: () => store.purge(1e9) }) },
  {
    name: 'answers the limit, not what was purged',
    breaks: '12a',
    mutate: ({ store }) => ({ purge: async (limit) => (await store.purge(limit), limit) }),
  },
  {
    name: 'purges live claims',
    breaks: '12b',
    mutate: ({ store, owners }) => ({
      async purge(limit) {
        for (const { key, token } of owners.values()) {
          if ((await store.inspect(key))?.state === 'claimed')
            await store.settle([{ key, token, retainMs: 0, as: 'released', counted: true }]);
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
        return answer.state === 'busy' && Date.now() > until.get(ask.key)!
          ? { state: 'claimed', fence: 99, attempt: 2, orphaned: true }
          : answer;
      })(base);
    },
  },
  {
    name: 'takes a corrupt record for absent',
    breaks: '15a',
    mutate: answers((answer) => (answer.state === 'corrupt' ? { state: 'claimed', fence: 99, attempt: 1, orphaned: false } : answer)),
  },
  {
    name: 'shows the token to people',
    breaks: 'admin a',
    mutate: ({ store, owners }) => ({ inspect: async (key) => ({ ...(await store.inspect(key))!, token: owners.get(key)?.token }) }),
  },
  {
    name: 'lists the newest parked records first',
    breaks: 'admin b',
    mutate: ({ store }) => ({ listParked: async (page) => [...(await store.listParked(page))].reverse() }),
  },
  {
    name: 'lists parked records by key',
    breaks: 'admin b',
    mutate: ({ store }) => ({
      async listParked({ limit, after = '' }) {
        const all = await store.listParked({ limit: 1e9 });
        return all
          .toSorted((a, b) => (a.key < b.key ? -1 : 1))
          .filter(({ key }) => key > after)
          .slice(0, limit);
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
        ...answers((answer, ask) =>
          answer.state === 'claimed' && replayed.has(ask.key) ? { ...answer, attempt: answer.attempt + 1 } : answer,
        )(base),
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
