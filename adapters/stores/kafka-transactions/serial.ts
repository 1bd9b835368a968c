/** Runs tasks one after another, in the order in which they were given. A task that rejects does not stop the next. */
export interface Serial {
  run<R>(task: () => Promise<R>): Promise<R>;
  /** Resolves when all tasks given so far have ended. */
  idle(): Promise<void>;
}

export function serial(): Serial {
  let last: Promise<unknown> = Promise.resolve();
  return {
    run(task) {
      const mine = last.then(task);
      last = mine.catch(() => {});
      return mine;
    },
    idle: () => last.then(() => {}),
  };
}
