import { sleep, type World } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import { inTransaction, isBusy, type SqliteDatabase, type SqliteStatement, storeError } from './database.ts';

/** Write transactions on one connection, one at a time. */
export interface Connection {
  /**
   * Runs `work` in a write transaction and commits it. If `work` rejects, everything is rolled back and the same error is thrown.
   * `work` may answer with a check: `committed` is asked when COMMIT has failed and left no transaction behind.
   * @throws ReceiverError `store` if the lock can't be had in time, or nothing was committed; `commit-in-doubt` if that is unknown
   */
  write<R>(work: () => Work<R> | Promise<Work<R>>): Promise<R>;
  /** Runs `work` on one snapshot, without the write lock. */
  read<R>(work: () => R): Promise<R>;
}

export interface Work<R> {
  readonly result: R;
  /** Reads back whether the transaction has committed; undefined if that can't be told. */
  readonly committed?: () => boolean | undefined;
  /** Called after the commit, before anybody else gets the connection. Must not throw. */
  readonly afterCommit?: () => void;
}

export function connection(db: SqliteDatabase, lockTimeoutMs: number, world: World): Connection {
  const { clock, random } = world;
  const beginRead = db.prepare('begin');
  // At once for writing: a transaction that reads first and writes later fails when others have written in between.
  const beginWrite = db.prepare('begin immediate');
  const commit = db.prepare('commit');
  const rollback = db.prepare('rollback');
  const queue = queueOf(db, world);
  /** A transaction of ours that could not be rolled back. */
  let leftOpen = false;

  /** SQLite's own wait would block the event loop, and with it every lease of this process; so it is done here. */
  async function beginBy(begin: SqliteStatement, deadline: number): Promise<void> {
    for (let tries = 0; ; tries++) {
      if (leftOpen) undo();
      try {
        begin.run();
        return;
      } catch (cause) {
        if (!isBusy(cause)) throw storeError('a transaction was begun', cause);
        if (clock.now() >= deadline) {
          throw new ReceiverError('store', `Expected SQLite's write lock within ${lockTimeoutMs} ms, but ${whoHolds(cause)}`, { cause });
        }
        // Short and random, and no longer for those who have waited long: all have the same chance.
        await sleep(clock, 0.5 + random.number() * Math.min(2 ** tries, 8));
      }
    }
  }

  function undo(): void {
    try {
      // SQLite may have rolled back by itself: disk full, I/O error.
      if (inTransaction(db)) rollback.run();
      leftOpen = false;
    } catch {
      // better-sqlite3 refuses while a handler's statement is being read. Tried again before the next BEGIN, which fails until then.
      leftOpen = true;
    }
  }

  /** Whether a failed COMMIT has committed nevertheless. */
  function settleCommit(cause: unknown, committed: Work<unknown>['committed']): boolean {
    if (inTransaction(db)) {
      undo();
      return false;
    }
    try {
      const answer = committed?.();
      if (answer !== undefined) return answer;
    } catch {
      // The file can't be read either: in doubt.
    }
    throw new ReceiverError('commit-in-doubt', `SQLite failed to commit, and whether it did can't be read back: ${cause}`, { cause });
  }

  async function exclusive<R>(work: (deadline: number) => Promise<R>): Promise<R> {
    const deadline = clock.now() + lockTimeoutMs;
    if (!(await queue.enter(lockTimeoutMs))) {
      throw new ReceiverError(
        'store',
        `Expected this SQLite connection to be free within ${lockTimeoutMs} ms, but other work held it. A handler that calls its own store waits for itself`,
      );
    }
    try {
      return await work(deadline);
    } finally {
      queue.leave();
    }
  }

  return {
    write: (work) =>
      exclusive(async (deadline) => {
        await beginBy(beginWrite, deadline);
        let done: Awaited<ReturnType<typeof work>>;
        try {
          done = await work();
        } catch (error) {
          undo();
          throw error;
        }
        try {
          commit.run();
        } catch (cause) {
          if (!settleCommit(cause, done.committed)) throw storeError('a transaction was committed', cause);
        }
        done.afterCommit?.();
        return done.result;
      }),

    read: (work) =>
      exclusive(async (deadline) => {
        await beginBy(beginRead, deadline);
        try {
          return work();
        } finally {
          undo();
        }
      }),
  };
}

/** SQLite says that this connection reads an old snapshot, although it is idle: a statement has not been read to its end. */
function whoHolds(cause: unknown): string {
  const snapshot = (cause as { errcode?: unknown }).errcode === 517 || (cause as { code?: unknown }).code === 'SQLITE_BUSY_SNAPSHOT';
  return snapshot ? 'a handler left a statement unfinished: read iterators to their end' : 'other connections held it';
}

type Queue = ReturnType<typeof fairQueue>;

/** A store and an outbox may share a connection: neither must find the other's transaction open. */
const queues = new WeakMap<SqliteDatabase, Queue>();

function queueOf(db: SqliteDatabase, world: World): Queue {
  const queue = queues.get(db) ?? fairQueue(world);
  queues.set(db, queue);
  return queue;
}

/** First come, first served; who has waited for `timeoutMs` leaves the queue with `false`. */
function fairQueue({ clock }: World): { enter(timeoutMs: number): Promise<boolean>; leave(): void } {
  const waiting = new Set<(entered: boolean) => void>();
  let taken = false;
  return {
    enter(timeoutMs) {
      if (!taken) {
        taken = true;
        return Promise.resolve(true);
      }
      return new Promise((resolve) => {
        const settle = (entered: boolean) => {
          waiting.delete(settle);
          cancel();
          resolve(entered);
        };
        const cancel = clock.after(timeoutMs, () => settle(false));
        waiting.add(settle);
      });
    },
    leave() {
      const [next] = waiting;
      if (next) next(true);
      else taken = false;
    },
  };
}
