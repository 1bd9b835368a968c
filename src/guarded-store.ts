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
  /** Nobody waits any more: calls that are under way lose their time limit, and so leave no timer behind. */
  close(): void;
}

export function guardedStore(store: DedupStore, gate: Gate, settings: CommonSettings): GuardedStore {
  const { clock } = settings.world;
  const limits = new Set<() => void>();
  let closed = false;

  /** Rejects when the call takes longer than `storeTimeoutMs`; its answer then goes to `late`. */
  async function inTime<T>(name: string, call: () => Promise<T>, late: (answer: T) => void = () => {}): Promise<T> {
    if (closed) return call();
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
    limits.add(cancel);
    try {
      const answering = Promise.resolve(call());
      answering.then((answer) => timedOut && late(answer)).catch(() => {});
      return await Promise.race([answering, timeout]);
    } finally {
      cancel();
      limits.delete(cancel);
    }
  }

  function answered<T>(
    name: string,
    asked: readonly unknown[],
    call: () => Promise<readonly T[]>,
    late?: (answers: readonly T[]) => void,
  ): Promise<readonly T[]> {
    return gate.watch(async () => {
      const answers = await inTime(name, call, late);
      if (Array.isArray(answers) && answers.length === asked.length) return answers;
      const got = Array.isArray(answers) ? answers.length : typeof answers;
      throw new ReceiverError('store', `Expected the store's \`${name}\` to give ${asked.length} answers, got ${got}`);
    });
  }

  /** Claims that came after nobody waited for them any more are given back, so that their messages need not wait for the lease. */
  function giveBack(asks: readonly Ask[], answers: readonly Answer[]): void {
    const ends = asks
      .filter((_, i) => answers[i]?.state === 'claimed')
      .map(({ key, token, retainMs }): End => ({ key, token, retainMs, as: 'released', counted: false }));
    if (ends.length > 0) store.settle(ends).catch(() => {});
  }

  const claim = (asks: Ask[]) =>
    answered(
      'claim',
      asks,
      () => store.claim(asks),
      (answers) => giveBack(asks, answers),
    );
  const settle = (ends: End[]) => answered('settle', ends, () => store.settle(ends));
  return {
    claim: coalesce(claim, { maxBatch }),
    settle: coalesce(settle, { maxBatch }),
    extend: (holds) => answered('extend', holds, () => store.extend(holds)),
    // Not watched: that purging is slow does not mean that the store is down.
    purge: (limit) => inTime('purge', () => store.purge(limit)),
    close() {
      closed = true;
      for (const cancel of limits) cancel();
      limits.clear();
    },
  };
}
