import type { Clock } from '../../../src/clock.ts';
import { type Report, unlessAborted } from './link.ts';

/** Commits the consumed offset of one partition: coalesced, one request at a time, never backwards. */
export interface Commits {
  /** `next` may have moved on. Committed soon. */
  advanced(): void;
  /** Commits what is done now. Resolves when that has succeeded or failed, or is given up by `close`; never rejects. */
  flush(): Promise<void>;
  /** The partition is somebody else's: nothing is committed any more. */
  close(): void;
}

/**
 * How long an offset that could be committed waits for others. A commit that is lost only means that messages come again and are known.
 */
const lingerMs = 100;

/** After a commit that has failed. */
const retryMs = 1_000;

export function commits(options: {
  readonly clock: Clock;
  /** The first offset that is not done. */
  next(): number;
  commit(next: number): Promise<void>;
  readonly report: Report;
}): Commits {
  const { clock } = options;
  let committed = -1;
  const end = new AbortController();
  let waiting: { readonly atOnce: boolean; readonly done: Promise<void>; readonly cancel: () => void } | undefined;
  let busy = false;
  let underWay: Promise<void> = Promise.resolve();

  /** What has advanced meanwhile is committed after it: a later one could overtake it. */
  async function commitNow(): Promise<void> {
    const next = options.next();
    if (next <= committed) return;
    let again = lingerMs;
    busy = true;
    try {
      await options.commit(next);
      committed = next;
    } catch (error) {
      if (end.signal.aborted) return;
      options.report(error, 'commit');
      again = retryMs;
    } finally {
      busy = false;
    }
    if (!end.signal.aborted && options.next() > committed) waiting ??= after(again);
  }

  /**
   * The check whether the partition is still ours and kafkajs's look at the generation happen in one turn, at the beginning of a task of
   * its own: when kafkajs has joined anew, its event has been heard by then. So nothing is committed under a generation that it is not from.
   */
  function after(delayMs: number): NonNullable<typeof waiting> {
    let cancel = () => {};
    const done = new Promise<void>((resolve) => {
      const stop = clock.after(delayMs, () => {
        waiting = undefined;
        underWay = commitNow();
        void underWay.then(resolve);
      });
      cancel = () => {
        stop();
        resolve();
      };
    });
    return { atOnce: delayMs === 0, done, cancel };
  }

  return {
    advanced() {
      if (!end.signal.aborted && !waiting && !busy) waiting = after(lingerMs);
    },
    async flush() {
      await unlessAborted(end.signal, underWay);
      if (end.signal.aborted || options.next() <= committed) return;
      // Another flush waits for the same commit.
      if (!waiting?.atOnce) {
        waiting?.cancel();
        waiting = after(0);
      }
      await unlessAborted(end.signal, waiting.done);
    },
    close() {
      end.abort();
      waiting?.cancel();
      waiting = undefined;
    },
  };
}
