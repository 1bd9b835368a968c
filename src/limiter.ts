/** At most `limit` holders at a time; the others wait in the order in which they came. */
export interface Limiter {
  /** Resolves with true when a place is free, to be given back with `leave`; with false if the limiter was closed. */
  enter(): Promise<boolean>;
  leave(): void;
  /** Turns away everyone who waits, and who comes later. */
  close(): void;
}

export function limiter(limit: number): Limiter {
  let free = limit;
  let closed = false;
  const waiting: ((entered: boolean) => void)[] = [];
  return {
    async enter() {
      if (closed) return false;
      if (free > 0) {
        free--;
        return true;
      }
      return new Promise((resolve) => waiting.push(resolve));
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
