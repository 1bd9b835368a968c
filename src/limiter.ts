/** At most `limit` holders at a time; the others wait in the order in which they came. */
export interface Limiter {
  /** Takes a place if one is free and nobody waits for it, to be given back with `leave`. */
  tryEnter(): boolean;
  /** Resolves with true when it has a place; with false if the limiter was closed. */
  enter(): Promise<boolean>;
  leave(): void;
  /** Turns away everyone who waits, and who comes later. */
  close(): void;
}

export function limiter(limit: number): Limiter {
  let free = limit;
  let closed = false;
  const waiting: ((entered: boolean) => void)[] = [];

  function tryEnter(): boolean {
    if (closed || free <= 0) return false;
    free--;
    return true;
  }

  return {
    tryEnter,
    async enter() {
      return tryEnter() || (!closed && new Promise((resolve) => waiting.push(resolve)));
    },
    leave() {
      const next = waiting.shift();
      if (next) next(true);
      else free++;
    },
    close() {
      closed = true;
      for (const resolve of waiting.splice(0)) resolve(false);
    },
  };
}
