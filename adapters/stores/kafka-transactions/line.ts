/** Tasks that begin and end in the order in which they were given, two at most at once. One that rejects does not stop the next. */
export interface Line {
  /**
   * `turn` resolves when all earlier tasks have ended, and `passed` lets the next one begin: at the latest it does when this one ends. A task
   * that waits for its turn first runs alone.
   */
  run<R>(task: (turn: Promise<void>, passed: () => void) => Promise<R>): Promise<R>;
  /** Resolves when all tasks given so far have ended. */
  idle(): Promise<void>;
}

export function line(): Line {
  let lastPassed: Promise<unknown> = Promise.resolve();
  let lastEnded: Promise<void> = Promise.resolve();
  let endedBefore: Promise<void> = Promise.resolve();
  return {
    run(task) {
      const turn = lastEnded;
      const { promise: passed, resolve: pass } = Promise.withResolvers<void>();
      const mine = Promise.all([lastPassed, endedBefore]).then(() => task(turn, pass));
      endedBefore = turn;
      // One that has nothing to wait for may end before those that were given earlier.
      lastEnded = Promise.allSettled([turn, mine]).then(() => {});
      lastPassed = Promise.race([passed, lastEnded]);
      return mine;
    },
    idle: () => lastEnded,
  };
}
