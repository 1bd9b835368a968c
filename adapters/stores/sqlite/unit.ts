import { describeError, ReceiverError } from '../../../src/errors.ts';
import type { TransactionalStore, Unit } from '../../../src/store.ts';
import type { Connection } from './connection.ts';
import { inTransaction, type SqliteDatabase, type SqliteStatement, statements } from './database.ts';
import type { JournalUpkeep } from './journal.ts';
import { openLedger } from './ledger.ts';
import type { Tables } from './schema.ts';
import type { Session } from './session.ts';

/** From so many recent keys on, each unit is followed by the move of one range of them. See recent.ts. */
const mergeAbove = 65_536;

/** The transactional way: one write transaction for a batch of messages, a savepoint for each. */
export function transactionalUnit<Db extends SqliteDatabase>(
  db: Db,
  t: Tables,
  connection: Connection,
  session: Session,
  journal: JournalUpkeep,
): TransactionalStore<Db>['unit'] {
  const savepoint = db.prepare('savepoint idempotent_message');
  const release = db.prepare('release idempotent_message');
  const undo = db.prepare('rollback to idempotent_message');
  // A deferred constraint that is violated while the unit is open: a handler's own COMMIT fails, instead of tearing the unit apart.
  const arm = db.prepare(`insert or replace into ${t.guard} (id, open) values (1, 0)`);
  const disarm = db.prepare(`delete from ${t.guard} where id = 1`);

  return async (work) => {
    const result = await connection.write(async () => {
      statements('a unit was begun', () => {
        session.load();
        arm.run();
      });
      const { unit, finish } = openUnit();
      const result = await work(unit);
      return { result, ...statements('the records of a unit were written', finish) };
    });
    if (session.recent.size() > mergeAbove) await merge();
    return result;
  };

  function openUnit() {
    const ledger = openLedger(session, journal);
    let broken: ReceiverError | undefined;
    let ended = false;
    let running = false;

    function check(): void {
      if (ended)
        throw new ReceiverError('store', 'Expected the unit to be open, but it has ended: a handler did not wait for all it started');
      if (broken) throw broken;
      if (!inTransaction(db)) throw breaks(undefined);
    }

    /** The transaction is not the one that was begun: nothing of it may be taken for done. */
    function breaks(cause: unknown): ReceiverError {
      const why = cause === undefined ? '' : `: ${describeError(cause)}`;
      const expected =
        "Expected the unit's transaction to stay open, but a handler ran BEGIN, COMMIT or ROLLBACK on `tx`, or SQLite rolled back";
      broken ??= new ReceiverError('store', expected + why, { cause });
      return broken;
    }

    /** The savepoint is there as long as the transaction is the one that it was made in. */
    function end(statement: SqliteStatement, handlerError?: unknown): void {
      try {
        statement.run();
      } catch (cause) {
        throw breaks(handlerError ?? cause);
      }
    }

    const unit: Unit<Db> = {
      async record(asks) {
        check();
        return statements('a unit looked up its keys', () => ledger.record(asks));
      },

      async savepoint(run) {
        check();
        if (running) throw new ReceiverError('store', 'Expected one savepoint after another, got two at once');
        running = true;
        try {
          statements('a savepoint was made', () => savepoint.run());
          let result: Awaited<ReturnType<typeof run>>;
          try {
            result = await run(db);
          } catch (error) {
            end(undo, error);
            end(release, error);
            throw error;
          }
          end(release);
          return result;
        } finally {
          running = false;
        }
      },

      async settle(ends) {
        check();
        return ends.map(ledger.settle);
      },
    };

    function finish() {
      check();
      ended = true;
      if (Number(disarm.run().changes) !== 1) throw breaks(undefined);
      return ledger.write();
    }

    return { unit, finish };
  }

  /** Housekeeping: what fails here is tried again after the next unit, and a file that has gone bad tells the next unit itself. */
  async function merge(): Promise<void> {
    const { merged } = session.recent;
    const oldest = merged.indexOf(Math.min(...merged));
    await connection
      .write(() => {
        session.load();
        return { result: undefined, afterCommit: session.mergeRecent(oldest) };
      })
      .catch(() => undefined);
  }
}
