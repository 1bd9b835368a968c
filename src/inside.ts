import { AsyncLocalStorage } from 'node:async_hooks';

const running = new AsyncLocalStorage<Running>();

/** One run of a handler or a step, as `isInside` knows it. Whoever makes it says when it has ended. */
export class Running {
  readonly owner: object;
  readonly key: string;
  readonly outer: Running | undefined = running.getStore();
  ended = false;

  constructor(owner: object, key: string) {
    this.owner = owner;
    this.key = key;
  }

  /** `work`, and all that follows from it, is inside. */
  call<Args extends unknown[], T>(work: (...args: Args) => T, ...args: Args): T {
    return running.run(this, work, ...args);
  }
}

/** Runs `work` so that `isInside` knows where it is. */
export async function runInside<T>(owner: object, key: string, work: () => Promise<T> | T): Promise<T> {
  const inside = new Running(owner, key);
  try {
    return await inside.call(work);
  } finally {
    inside.ended = true;
  }
}

/**
 * Whether the caller is inside a running handler of `owner`, with `key` if one is given. A handler that waits for itself would wait for
 * ever. What it has started and left behind, such as a timer, is outside once it has ended.
 */
export function isInside(owner: object, key?: string): boolean {
  for (let at = running.getStore(); at; at = at.outer) {
    if (!at.ended && at.owner === owner && (key === undefined || at.key === key)) return true;
  }
  return false;
}
