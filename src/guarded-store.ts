import { coalesce } from './coalesce.ts';
import { ReceiverError } from './errors.ts';
import type { Gate } from './gate.ts';
import type { CommonSettings } from './options.ts';
import type { Answer, Ask, DedupStore, End, Hold, Settled } from './store.ts';

/** Largest batch that concurrent calls are gathered into. */
const maxBatch = 1_000;

/** A store whose calls are coalesced, bounded in time, checked for nonsense, and watched by the gate. */
export interface GuardedStore {
  claim(asks: readonly Ask[]): Promise<Answer[]>;
  settle(ends: readonly End[]): Promise<Settled[]>;
  extend(holds: readonly Hold[]): Promise<readonly Settled[]>;
  purge(limit: number): Promise<number>;
}

export function guardedStore(store: DedupStore, gate: Gate, settings: CommonSettings): GuardedStore {
  const { clock } = settings.world;

  async function bounded<T>(
    name: string,
    asked: number,
    call: () => Promise<readonly T[]>,
    late: (answers: readonly T[]) => void,
  ): Promise<readonly T[]> {
    return gate.watch(async () => {
      let timedOut = false;
      let cancel = () => {};
      const timeout = new Promise<never>((_, reject) => {
        cancel = clock.after(settings.storeTimeoutMs, () => {
          timedOut = true;
          reject(
            new ReceiverError('store', `Expected the store's \`${name}\` to answer within ${settings.storeTimeoutMs} ms, got no answer`),
          );
        });
      });
      try {
        const answering = Promise.resolve(call());
        answering.then((answers) => timedOut && late(answers)).catch(() => {});
        const answers = await Promise.race([answering, timeout]);
        if (Array.isArray(answers) && answers.length === asked) return answers;
        throw new ReceiverError(
          'store',
          `Expected the store's \`${name}\` to give ${asked} answers, got ${Array.isArray(answers) ? answers.length : typeof answers}`,
        );
      } finally {
        cancel();
      }
    });
  }

  /** Claims that came after nobody waited for them any more are given back, so that their messages need not wait for the lease. */
  function giveBack(asks: readonly Ask[], answers: readonly Answer[]): void {
    const ends = asks
      .filter((_, i) => answers[i]?.state === 'claimed')
      .map(({ key, token, retainMs }): End => ({ key, token, retainMs, as: 'released', counted: false }));
    if (ends.length > 0) store.settle(ends).catch(() => {});
  }

  return {
    claim: coalesce(
      (asks: Ask[]) =>
        bounded(
          'claim',
          asks.length,
          () => store.claim(asks),
          (answers) => giveBack(asks, answers),
        ),
      { maxBatch },
    ),
    settle: coalesce(
      (ends: End[]) =>
        bounded(
          'settle',
          ends.length,
          () => store.settle(ends),
          () => {},
        ),
      { maxBatch },
    ),
    extend: (holds) =>
      bounded(
        'extend',
        holds.length,
        () => store.extend(holds),
        () => {},
      ),
    purge: (limit) => store.purge(limit),
  };
}
