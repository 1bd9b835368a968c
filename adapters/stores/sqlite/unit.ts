import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, End, Key, Settled, TransactionalStore, Unit } from '../../../src/store.ts';
import type { Connection } from './connection.ts';
import { inTransaction, type SqliteDatabase, type SqliteStatement, statements } from './database.ts';
import { endRow, newRow, touch } from './leased.ts';
import { keysOf, writeEntries } from './recent.ts';
import { completed, decide, decodeFingerprint, decodeKeys, differ, keyBytes, type Row } from './record.ts';
import type { Tables } from './schema.ts';
import type { Session } from './session.ts';

/** From so many recent keys on, each unit is followed by the move of one range of them. See recent.ts. */
const mergeAbove = 65_536;

/**
 * The transactional way. The unit holds SQLite's write lock from its first to its last moment, so what `record` finds stays true, and the
 * records themselves are written once, at the end, when it is known what has become of each message.
 */
export function transactionalUnit<Db extends SqliteDatabase>(db: Db, t: Tables, connection: Connection, session: Session): TransactionalStore<Db>['unit'] {
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
    await mergeIfMany();
    return result;
  };

  function openUnit() {
    const own = new Map<Key, Own>();
    let broken: ReceiverError | undefined;
    let ended = false;
    let running = false;

    function check(): void {
      if (ended) throw new ReceiverError('store', 'Expected the unit to be open, but it has ended: a handler did not wait for all it started');
      if (broken) throw broken;
      if (!inTransaction(db)) throw breaks(undefined);
    }

    /** The transaction is not the one that was begun: nothing of it may be taken for done. */
    function breaks(cause: unknown): ReceiverError {
      broken ??= new ReceiverError('store', 'Expected the unit\'s transaction to stay open: a handler ran BEGIN, COMMIT or ROLLBACK on `tx`, or SQLite rolled back', { cause });
      return broken;
    }

    /** The answer of a key that this unit has recorded before. */
    function again(mine: Own, ask: Ask, now: number): Answer {
      const fingerprint = decodeFingerprint(ask.fingerprint);
      if (differ(fingerprintOf(mine), fingerprint)) return { state: 'mismatch' };
      // Completed so far, but its handler may still fail: busy to all but its own token.
      if (mine.row.state === completed) return mine.ask.token === ask.token ? claimedBy(mine.row) : { state: 'busy', remainingMs: 0 };
      const decision = decide(mine.row, ask.token, fingerprint, now);
      if ('answer' in decision) return decision.answer;
      return 'own' in decision ? claimedBy(mine.row) : take(ask, mine.bytes, newRow(decision, ask.token, session.nextFence()), false);
    }

    function take(ask: Ask, bytes: Buffer, claim: Row, fresh: boolean): Answer {
      own.set(ask.key, { ask, bytes, claim, row: { ...claim, state: completed }, retainMs: ask.retainMs, fresh });
      return claimedBy(claim);
    }

    function recordAll(asks: readonly Ask[]): Answer[] {
      const now = session.now();
      const bytes = decodeKeys(asks.map((ask) => ask.key));
      return asks.map((ask, index) => {
        const mine = own.get(ask.key);
        if (mine) return again(mine, ask, now);
        const key = bytes.subarray(index * keyBytes, (index + 1) * keyBytes);
        const row = session.find(ask.key, key);
        if (!row) return take(ask, key, newRow(first, ask.token, session.nextFence()), true);
        const decision = decide(row, ask.token, decodeFingerprint(ask.fingerprint), now);
        if ('answer' in decision) return decision.answer;
        return take(ask, key, 'own' in decision ? decision.own : newRow(decision, ask.token, session.nextFence()), false);
      });
    }

    /** The savepoint is there as long as the transaction is the one that it was made in. */
    function end(statement: SqliteStatement, handlerError?: unknown): void {
      if (!inTransaction(db)) throw breaks(handlerError);
      try {
        statement.run();
      } catch (cause) {
        throw breaks(handlerError ?? cause);
      }
    }

    const unit: Unit<Db> = {
      async record(asks) {
        check();
        return statements('a unit looked up its keys', () => recordAll(asks));
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
        return ends.map(settleOne);
      },
    };

    function settleOne(end: End): Settled {
      const mine = own.get(end.key);
      if (mine?.ask.token !== end.token) return 'fenced';
      // From the claim on, not from an earlier ending: an ending that is asked again must not give an attempt back twice.
      mine.row = endRow(mine.claim, end);
      mine.retainMs = end.retainMs;
      return 'ok';
    }

    /** Writes what has become of each message. */
    function finish() {
      check();
      ended = true;
      if (Number(disarm.run().changes) !== 1) throw breaks(undefined);
      const now = session.now();
      const plain = new Map<number, Own[]>();
      for (const each of own.values()) {
        if (each.fresh && each.row.state === completed && each.row.result === null) {
          const list = plain.get(each.retainMs);
          if (list) list.push(each);
          else plain.set(each.retainMs, [each]);
        } else {
          session.put(each.bytes, touch({ ...each.row, fingerprint: fingerprintOf(each) }, now, 0, each.retainMs));
        }
      }
      const batches = [...plain].map(([retainMs, list]) => {
        const entries = writeEntries(list.map(({ ask, claim }) => ({ key: ask.key, fingerprint: ask.fingerprint, fence: claim.fence })));
        const batch = { id: session.nextFence(), writtenAt: now, expiresAt: now + Math.ceil(retainMs), entries };
        session.appendRecent(batch);
        return batch;
      });
      session.saveFence();
      const [probe] = own.values();
      return {
        committed: () => {
          if (!probe) return undefined;
          session.load();
          const row = session.find(probe.ask.key, probe.bytes);
          return row !== undefined && !('corrupt' in row) && row.fence === probe.row.fence && row.state === probe.row.state;
        },
        afterCommit: () => {
          for (const batch of batches) session.recent.add(batch, keysOf(batch));
        },
      };
    }

    return { unit, finish };
  }

  /** Housekeeping: what fails here is tried again after the next unit, and a file that has gone bad tells the next unit itself. */
  async function mergeIfMany(): Promise<void> {
    if (session.recent.size() <= mergeAbove) return;
    const oldest = session.recent.merged.indexOf(Math.min(...session.recent.merged));
    await connection
      .write(() => {
        session.load();
        return { result: undefined, afterCommit: session.mergeRecent(oldest) };
      })
      .catch(() => undefined);
  }
}

/** A key that a unit has recorded. */
interface Own {
  readonly ask: Ask;
  readonly bytes: Buffer;
  /** As it was taken. */
  readonly claim: Row;
  /** As it is to be written. */
  row: Row;
  retainMs: number;
  /** Nothing unexpired is in the file under this key. */
  readonly fresh: boolean;
}

/** Decoded only when somebody wants to know. */
function fingerprintOf({ row, ask }: Own): Uint8Array {
  return row.fingerprint.length > 0 ? row.fingerprint : decodeFingerprint(ask.fingerprint);
}

const first = { attempts: 1, orphaned: false, fingerprint: new Uint8Array(0) };

function claimedBy(row: Row): Answer {
  return { state: 'claimed', fence: row.fence, attempt: row.attempts, orphaned: row.orphaned };
}
