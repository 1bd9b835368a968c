import type { Answer, Key } from '../../../src/store.ts';
import { answers, ends, type Mutant } from './base.ts';

/** Wrong about who owns a claim. */
export const ownershipMutants: readonly Mutant[] = [
  {
    name: 'fences an owner whose lease has ended though nobody took over',
    breaks: '5b',
    mutate: ({ store, owners, claimedAt, now }) => ({
      settle: (all) =>
        store.settle(
          all.map((end) =>
            now() > (claimedAt.get(end.key) ?? 0) + (owners.get(end.key)?.leaseMs ?? 0) ? { ...end, token: 'nobody' } : end,
          ),
        ),
    }),
  },
  {
    name: 'adds the extension to the old lease',
    breaks: '5c',
    mutate: ({ store, owners, claimedAt, now }) => ({
      extend: (all) =>
        store.extend(
          all.map((hold) => ({
            ...hold,
            leaseMs: hold.leaseMs + Math.max(0, (claimedAt.get(hold.key) ?? 0) + (owners.get(hold.key)?.leaseMs ?? 0) - now()),
          })),
        ),
    }),
  },
  {
    name: 'always answers the same fence',
    breaks: '6a',
    mutate: answers((answer) => (answer.state === 'claimed' ? { ...answer, fence: 1 } : answer)),
  },
  ...(['6b', '6c', '6d'] as const).map(
    (breaks): Mutant => ({
      name: `counts fences in the record, so they start anew with it (${breaks})`,
      breaks,
      mutate: answers((answer) => (answer.state === 'claimed' ? { ...answer, fence: answer.attempt } : answer)),
    }),
  ),
  {
    name: 'ignores the token on settle',
    breaks: '7a',
    mutate: ends((end, { owners }) => ({ ...end, token: owners.get(end.key)?.token ?? end.token })),
  },
  {
    name: 'ignores the token on extend',
    breaks: '7a',
    mutate: ({ store, owners }) => ({
      extend: (all) => store.extend(all.map((hold) => ({ ...hold, token: owners.get(hold.key)?.token ?? hold.token }))),
    }),
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
    name: "lets a zombie take the successor's attempt back",
    breaks: '7b released',
    mutate(base) {
      const back = new Map<Key, number>();
      return {
        async settle(all) {
          const settled = await base.store.settle(all);
          for (const [i, end] of all.entries()) if (settled[i] === 'fenced' && end.as === 'released' && !end.counted) back.set(end.key, 1);
          return settled;
        },
        ...answers((answer, ask) =>
          answer.state === 'claimed' ? { ...answer, attempt: answer.attempt - (back.get(ask.key) ?? 0) } : answer,
        )(base),
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
    mutate: ({ store }) => ({
      settle: async (all) => Promise.all(all.map(async (end) => ((await store.inspect(end.key)) ? (await store.settle([end]))[0]! : 'ok'))),
    }),
  },
  ...(['completed', 'released', 'parked'] as const).map(
    (state): Mutant => ({
      name: `extends a claim that has ended: ${state}`,
      breaks: `7d ${state}`,
      mutate: ({ store, owners }) => ({
        extend: async (all) =>
          Promise.all(
            all.map(async (hold) =>
              (await store.inspect(hold.key))?.state === state && owners.get(hold.key)?.token === hold.token
                ? 'ok'
                : (await store.extend([hold]))[0]!,
            ),
          ),
      }),
    }),
  ),
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
];
