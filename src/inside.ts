import { AsyncLocalStorage } from 'node:async_hooks';

interface Running {
  readonly owner: object;
  readonly key: string;
  readonly outer: Running | undefined;
  ended: boolean;
}

const running = new AsyncLocalStorage<Running>();

/** Runs `work` so that `isInside` knows where it is. */
export async function runInside<T>(owner: object, key: string, work: () => Promise<T> | T): Promise<T> {
  const inside: Running = { owner, key, outer: running.getStore(), ended: false };
  try {
    return await running.run(inside, async () => work());
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
