import { digest } from '../digest.ts';
import { ReceiverError, RetryAfter } from '../errors.ts';
import type { GuardedStore } from '../guarded-store.ts';
import type { Lease } from '../lease.ts';
import type { Key } from '../store.ts';
import type { StepSource } from './attempt-journal.ts';

interface AsideOptions {
  readonly store: GuardedStore;
  readonly leaseMs: number;
  readonly retentionMs: number;
  readonly world: { readonly clock: { now(): number }; readonly random: { token(): string } };
}

/**
 * The journal of a transactional handler: beside its transaction, so that a rollback does not undo what is known of its steps. The
 * transaction is no claim there, so its steps have one of their own, which is taken at the first of them and given back when the handler ends.
 * Its key is not the message's: the two records may be in one table.
 */
export function stepsAside(messageKey: Key, lease: Lease, { store, leaseMs, retentionMs, world }: AsideOptions): StepSource {
  const key = digest(['journal', messageKey], 32);
  const token = world.random.token();
  // A message that was parked can be replayed at the end of its retention, which begins anew then.
  const retainMs = 2 * retentionMs;
  return {
    journal: store.journal!,
    async claim() {
      const askedAt = world.clock.now();
      const [answer] = await store.claim([{ key, token, fingerprint: '', leaseMs, retainMs }]);
      if (answer!.state === 'busy') {
        // Its transaction is gone, but the worker that had it may still be in a step.
        throw new RetryAfter(answer!.remainingMs, 'An earlier attempt of this message still holds the journal of its steps');
      }
      if (answer!.state !== 'claimed') {
        throw new ReceiverError('store', `Expected the journal of a message to be there for its steps, got ${JSON.stringify(answer)}`);
      }
      lease.claim({ key, token }, askedAt);
      return { key, token, fence: answer!.fence };
    },
    async release() {
      lease.unclaim();
      // If it fails, the claim ends with its lease.
      await store.settle([{ key, token, retainMs, as: 'released', counted: true }]).catch(() => {});
    },
  };
}
