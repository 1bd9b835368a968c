import { randomUUID } from 'node:crypto';

/**
 * Time as the core sees it. The core reads no other clock, so a test or a simulator that gives its own owns all of time.
 */
export interface Clock {
  /** Monotonic milliseconds from an arbitrary origin. Everything that this process decides by time uses it. */
  now(): number;
  /** Milliseconds since the Unix epoch. Used only to tell the age of a message, never to decide who owns it. */
  wall(): number;
  /** Runs `task` once after `delayMs`. The returned function cancels it; cancelling twice is harmless. */
  after(delayMs: number, task: () => void): () => void;
}

/** Chance as the core sees it: tokens and jitter come from here and from nowhere else. */
export interface Random {
  /** A number in [0, 1). */
  number(): number;
  /** A token that nobody can guess, at least 122 random bits. */
  token(): string;
}

/** The outside of the core: everything that is not deterministic, in one place. */
export interface World {
  readonly clock: Clock;
  readonly random: Random;
}

/** The machine's own clock and randomness: the default of every `world` option. */
export const realWorld: World = {
  clock: {
    now: () => performance.now(),
    wall: () => Date.now(),
    after(delayMs, task) {
      // setTimeout fires at once for delays over 2^31-1 ms.
      const timer = setTimeout(task, Math.min(delayMs, 2_147_483_647));
      return () => clearTimeout(timer);
    },
  },
  random: {
    number: () => Math.random(),
    token: () => randomUUID(),
  },
};

/** Resolves after `delayMs`, or at once with `false` when `signal` is aborted first. Leaves no timer behind either way. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve(false);
    const wake = (slept: boolean) => {
      cancel();
      signal?.removeEventListener('abort', onAbort);
      resolve(slept);
    };
    const onAbort = () => wake(false);
    const cancel = clock.after(delayMs, () => wake(true));
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** Whether `work` has ended within `ms`. Leaves no timer behind either way. */
export async function endsWithin(clock: Clock, ms: number, work: Promise<unknown>): Promise<boolean> {
  let cancel = () => {};
  const late = new Promise<boolean>((resolve) => {
    cancel = clock.after(ms, () => resolve(false));
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    cancel();
  }
}
