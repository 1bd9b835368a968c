/** Bounds the messages in flight. Memory, the receiver's queue and the broker's in-flight limit hang on it. */
export interface Slots {
  taken(): number;
  /** Takes up to ten places, as soon as it is worth a receive; 0 if `signal` is aborted first. */
  take(signal: AbortSignal): Promise<number>;
  give(count: number): void;
  /** Resolves when no place is taken. */
  idle(): Promise<void>;
}

export function slots(max: number): Slots {
  // A receive costs the same for one message as for ten, so it waits until it can bring a good part of a batch.
  const worthIt = Math.min(10, Math.ceil(max / 2));
  let taken = 0;
  const waiting: (() => void)[] = [];
  const idlers: (() => void)[] = [];

  function wake(): void {
    if (max - taken >= worthIt) waiting.shift()?.();
    if (taken === 0) for (const idler of idlers.splice(0)) idler();
  }

  return {
    taken() {
      return taken;
    },
    async take(signal) {
      while (!signal.aborted) {
        const free = Math.min(10, max - taken);
        if (free >= worthIt) {
          taken += free;
          wake();
          return free;
        }
        await new Promise<void>((resolve) => {
          const done = () => {
            signal.removeEventListener('abort', done);
            resolve();
          };
          signal.addEventListener('abort', done, { once: true });
          waiting.push(done);
        });
      }
      return 0;
    },
    give(count) {
      taken -= count;
      wake();
    },
    async idle() {
      if (taken > 0) await new Promise<void>((resolve) => idlers.push(resolve));
    },
  };
}
