import { answers, asks, ends, type Mutant } from './base.ts';

/** Wrong about asking for keys. */
export const claimMutants: readonly Mutant[] = [
  {
    name: 'answers in the wrong order',
    breaks: '1a',
    mutate: ({ store }) => ({ claim: async (all) => [...(await store.claim(all))].reverse() }),
  },
  {
    name: 'gives both of two asks in one batch the claim',
    breaks: '1b',
    mutate: answers((answer, ask, { owners }) =>
      answer.state === 'busy' && owners.get(ask.key) !== ask ? { state: 'claimed', fence: 99, attempt: 1, orphaned: false } : answer,
    ),
  },
  {
    name: 'throws for an empty array',
    breaks: '1c',
    mutate: ({ store }) => ({
      claim: async (all) => (all.length > 0 ? store.claim(all) : Promise.reject(new Error('syntax error near "()"'))),
    }),
  },
  {
    name: 'has a limit of 999 parameters',
    breaks: '1d',
    mutate: ({ store }) => ({
      settle: async (all) => (all.length < 999 ? store.settle(all) : Promise.reject(new Error('too many variables'))),
    }),
  },
  ...(['2a', '2b'] as const).map(
    (breaks): Mutant => ({
      name: `looks first and claims afterwards (${breaks})`,
      breaks,
      mutate: ({ store }) => ({
        async claim(all) {
          const found = await Promise.all(all.map(({ key }) => store.inspect(key)));
          const result = await store.claim(all);
          return result.map((answer, i) => (found[i] ? answer : { state: 'claimed', fence: 1, attempt: 1, orphaned: false }));
        },
      }),
    }),
  ),
  { name: 'loses the result', breaks: '3a', mutate: ends((end) => (end.as === 'completed' ? { ...end, result: undefined } : end)) },
  {
    name: 'takes an empty result for none',
    breaks: '3b',
    mutate: ends((end) => (end.as === 'completed' ? { ...end, result: end.result || undefined } : end)),
  },
  {
    name: 'cuts results at NUL',
    breaks: '3c',
    mutate: ends((end) => (end.as === 'completed' ? { ...end, result: end.result?.split('\0')[0] } : end)),
  },
  {
    name: 'cuts results at 64 kB',
    breaks: '3c',
    mutate: ends((end) => (end.as === 'completed' ? { ...end, result: end.result?.slice(0, 65_535) } : end)),
  },
  ...(['claimed', 'orphaned', 'released', 'completed', 'parked'] as const).map(
    (state): Mutant => ({
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
    }),
  ),
  { name: 'compares empty fingerprints too', breaks: '4b', mutate: asks((ask) => ({ ...ask, fingerprint: ask.fingerprint || 'none' })) },
  {
    name: 'answers busy as completed',
    breaks: '5a',
    mutate: answers((answer) => (answer.state === 'busy' ? { state: 'completed', ageMs: 0 } : answer)),
  },
  { name: 'never ends a lease', breaks: '5a', mutate: asks((ask) => ({ ...ask, leaseMs: 1e12 })) },
];
