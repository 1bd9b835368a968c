import type { Clock } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';

/** Rejects when `task` takes longer than `ms`, or is `unwanted`. `task` goes on, so each of its steps has to ask `isLate`, or do no harm. */
export async function within<T>(
  clock: Clock,
  ms: number,
  what: string,
  task: (isLate: () => boolean) => Promise<T>,
  unwanted?: AbortSignal,
): Promise<T> {
  let late = false;
  let cancel = () => {};
  const limit = new Promise<never>((_, reject) => {
    cancel = clock.after(ms, () => {
      late = true;
      reject(new ReceiverError('store', `Expected ${what} within ${Math.round(ms)} ms`));
    });
    unwanted?.addEventListener('abort', () => reject(new ReceiverError('store', `Nobody waits for ${what} any more`)), { once: true });
  });
  try {
    return await Promise.race([task(() => late), limit]);
  } finally {
    cancel();
  }
}
