import { coalesce } from './coalesce.ts';
import { type ClaimRef, type Entries, type EntryWrite, isJournal } from './effects/journal.ts';
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
  /** Absent if the store is no journal. */
  readonly journal: GuardedJournal | undefined;
  /** Nobody waits any more: calls that are under way fail, their outcome unknown, and leave no timer behind. */
  close(): void;
}

export interface GuardedJournal {
  writeEntries(writes: readonly EntryWrite[]): Promise<Settled[]>;
  readEntries(claims: readonly ClaimRef[]): Promise<Entries[]>;
}

export function guardedStore(store: DedupStore, gate: Gate, settings: CommonSettings): GuardedStore {
  const { clock } = settings.world;
  /** Ends the waiting of each call that is under way. */
  const calls = new Set<(when: string) => void>();
  let closed = false;

  /** Rejects when the call takes longer than `storeTimeoutMs`; its answer then goes to `late`. */
  async function inTime<T>(name: string, call: () => Promise<T>, late: (answer: T) => void = () => {}): Promise<T> {
    if (closed) return call();
    let givenUp = false;
    let giveUp = (_when: string) => {};
    let cancel = () => {};
    const limit = new Promise<never>((_, reject) => {
      giveUp = (when) => {
        givenUp = true;
        cancel();
        reject(new ReceiverError('store', `Expected the store's \`${name}\` to answer ${when}, got no answer`));
      };
      cancel = clock.after(settings.storeTimeoutMs, () => giveUp(`within ${settings.storeTimeoutMs} ms`));
    });
    calls.add(giveUp);
    try {
      const answering = Promise.resolve(call());
      answering.then((answer) => givenUp && late(answer)).catch(() => {});
      return await Promise.race([answering, limit]);
    } finally {
      cancel();
      calls.delete(giveUp);
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
  const journal: GuardedJournal | undefined = isJournal(store)
    ? {
        writeEntries: coalesce((writes) => answered('writeEntries', writes, () => store.writeEntries(writes)), { maxBatch }),
        readEntries: coalesce((claims) => answered('readEntries', claims, () => store.readEntries(claims)), { maxBatch }),
      }
    : undefined;
  return {
    journal,
    claim: coalesce(claim, { maxBatch }),
    settle: coalesce(settle, { maxBatch }),
    extend: (holds) => answered('extend', holds, () => store.extend(holds)),
    // Not watched: that purging is slow does not mean that the store is down.
    purge: (limit) => inTime('purge', () => store.purge(limit)),
    close() {
      closed = true;
      for (const giveUp of calls) giveUp('before the receiver had stopped');
    },
  };
}
