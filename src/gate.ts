import { sleep, type World } from './clock.ts';
import { isClaimLost } from './errors.ts';
import type { Emit } from './events.ts';

const firstPauseMs = 100;
const maxPauseMs = 10_000;

/** Knows whether the store answers, and makes sources pause while it does not. */
export interface Gate {
  /** Runs a store call and learns from its outcome. That somebody else owns the message by now (`claim-lost`) is no news of the store. */
  watch<T>(call: () => Promise<T>): Promise<T>;
  /** What is left of the present pause, with jitter, so that workers don't all come back at once. */
  pauseMs(): number;
  /** Resolves with true when there is no pause, or after it; with false if one of `signals` is aborted first. */
  open(...signals: readonly AbortSignal[]): Promise<boolean>;
}

/** Each failure in a row doubles the pause, from 0.1 s to 10 s. One success ends it: the next call after a pause is the probe. */
export function gate(world: World, scope: string, emit: Emit): Gate {
  let failures = 0;
  let until = 0;
  /** Those who wait for the end of the pause. */
  const waiting = new Set<AbortController>();

  const pauseMs = () => Math.max(0, until - world.clock.now());
  return {
    pauseMs: () => Math.round(pauseMs() + (world.random.number() * firstPauseMs) / 2),
    async watch(call) {
      try {
        const result = await call();
        if (failures > 0) {
          failures = 0;
          until = 0;
          for (const waiter of waiting) waiter.abort();
          emit('storeUp', { scope });
        }
        return result;
      } catch (error) {
        // Calls that fail together are one failure.
        if (!isClaimLost(error) && pauseMs() === 0) {
          const pause = Math.min(maxPauseMs, firstPauseMs * 2 ** failures++);
          until = world.clock.now() + pause;
          emit('storeDown', { scope, error, pauseMs: pause });
        }
        throw error;
      }
    },
    async open(...signals) {
      const isAborted = () => signals.some(({ aborted }) => aborted);
      while (pauseMs() > 0 && !isAborted()) {
        const waiter = new AbortController();
        const wake = () => waiter.abort();
        waiting.add(waiter);
        for (const signal of signals) signal.addEventListener('abort', wake, { once: true });
        await sleep(world.clock, pauseMs(), waiter.signal);
        for (const signal of signals) signal.removeEventListener('abort', wake);
        waiting.delete(waiter);
      }
      return !isAborted();
    },
  };
}
