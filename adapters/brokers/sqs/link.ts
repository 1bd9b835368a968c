import type { Clock, World } from '../../../src/clock.ts';
import type { SqsCalls } from './client.ts';

/** What the poller was doing when something went wrong. */
export type SqsActivity = 'start' | 'receive' | 'delete' | 'visibility' | 'dead-letter' | 'process';

/** Tells the user; never throws. */
export type Report = (error: unknown, during: SqsActivity) => void;

/** The way to one queue, shared by everything that talks to it. */
export interface Link {
  readonly calls: SqsCalls;
  readonly queueUrl: string;
  readonly world: World;
  readonly report: Report;
  /** A request without an answer after this time counts as failed, its outcome unknown. */
  readonly requestMs: number;
  /** Aborted when it is too late to tell the broker anything more. */
  readonly over: AbortSignal;
}

/**
 * Runs a request that has to end: when `limitMs` is over or `outer` is aborted, its signal is aborted and the promise rejects, also if the
 * client ignores the signal. The SDK by itself waits for ever on a half-open connection.
 */
export function within<T>(clock: Clock, limitMs: number, outer: AbortSignal, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const inner = new AbortController();
    const fail = (name: string, message: string) => {
      const error = new Error(message);
      error.name = name;
      end();
      reject(error);
      inner.abort(error);
    };
    const onAbort = () => fail('AbortError', 'The poller is stopping');
    const end = () => {
      cancel();
      outer.removeEventListener('abort', onAbort);
    };
    const cancel = clock.after(limitMs, () => fail('TimeoutError', `No answer within ${limitMs} ms`));
    outer.addEventListener('abort', onAbort, { once: true });
    if (outer.aborted) return onAbort();
    // A client that throws before it returns a promise must not leave the timer behind.
    Promise.resolve()
      .then(() => call(inner.signal))
      .then(resolve, reject)
      .finally(end);
  });
}

/** Delay before the next try: 0.1 s, doubled by each failure in a row up to `maxMs`, less up to a half by chance. */
export function backoffMs(failures: number, maxMs: number, world: World): number {
  return Math.min(maxMs, 100 * 2 ** Math.min(failures, 20)) * (1 - world.random.number() / 2);
}
