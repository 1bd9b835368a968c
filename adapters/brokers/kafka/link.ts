import type { World } from '../../../src/clock.ts';

/** What the adapter was doing when something went wrong. */
export type KafkaActivity = 'settings' | 'membership' | 'assign' | 'commit' | 'dead-letter' | 'order' | 'process' | 'progress';

/** Tells the user; never throws. */
export type Report = (error: unknown, during: KafkaActivity) => void;

/** Delay before the next try: 0.1 s, doubled by each failure in a row up to `maxMs`, less up to a half by chance. */
export function backoffMs(failures: number, maxMs: number, world: World): number {
  return Math.min(maxMs, 100 * 2 ** Math.min(failures, 20)) * (1 - world.random.number() / 2);
}

/** Settles as `work` does, or resolves with undefined when `signal` is aborted. Leaves no listener behind. */
export function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const onAbort = () => resolve(undefined);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
