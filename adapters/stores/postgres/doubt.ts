import { sleep, type World } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import type { Key } from '../../../src/store.ts';
import type { PgQueryable } from './client.ts';
import { durableSql } from './leased.ts';
import type { Names } from './names.ts';
import { claimed, keyToBytes } from './rows.ts';

/** A transaction as the server knows it. */
export interface Transaction {
  /** Its id, an `xid8` as text. */
  readonly xid: string;
  /** The server's process that runs it. */
  readonly pid: number;
}

/** By what a unit's commit can be recognised afterwards. */
export interface Probe extends Transaction {
  /** One of its records. */
  readonly key: Key;
  readonly token: string;
}

/** So often it is asked, with pauses from 0.1 s that double: 6 seconds in all. */
const mostAskings = 6;

/**
 * Finds out what has become of a COMMIT that got no answer. Resolves if it has committed, rejects with `error` if it has not, and with code
 * `commit-in-doubt` if nobody can tell.
 *
 * The server remembers the outcome of each transaction by its id. That it says "committed" is not enough: after a failover the id may be
 * another's, and so it may be after a crash. So a record has to be there, with the unit's token. A claim is none: a message that came again was
 * claimed with this token before the unit began.
 *
 * Nor is it enough that the record is there: a session that is ended while it waits for a synchronous standby has committed without it. So the record
 * is locked, which is a write, and the answer comes when the standby has that, and all that was written before.
 */
export async function settleDoubt(pool: PgQueryable, names: Names, world: World, probe: Probe | undefined, error: unknown): Promise<void> {
  if (!probe) throw inDoubt(error, 'nothing was recorded, by which its outcome could be known');
  let why: unknown;
  for (let asked = 0; asked < mostAskings; asked++) {
    if (asked > 0) await sleep(world.clock, 100 * 2 ** (asked - 1));
    try {
      const { rows } = await pool.query(
        `with durable as materialized (select set_config('synchronous_commit', ${durableSql}, true)),
recorded as materialized (
  select from durable, ${names.records} r where r.key = $2 and r.token = $3 and r.state <> ${claimed} for key share of r)
select pg_xact_status($1::text::xid8) as status, exists (select from recorded) as recorded`,
        [probe.xid, keyToBytes(probe.key), probe.token],
      );
      const { status, recorded } = rows[0] as { status: string | null; recorded: boolean };
      // Ended, it is one or the other.
      if (status === 'in progress' && asked > 0) await endTransaction(pool, probe);
      if (status === 'aborted') throw new NotCommitted();
      if (recorded && status !== 'in progress') return;
      // What is seen of the records may be a moment older than the status.
      why =
        status === 'in progress' ? 'it is still being committed' : `the server says ${status ?? 'nothing'}, and its record is not there`;
    } catch (cause) {
      if (cause instanceof NotCommitted) throw error;
      why = cause;
    }
  }
  throw inDoubt(error, String(why));
}

/**
 * Ends a transaction whose connection may be half open, so that the server would wait for the rest of it and hold its keys. It ends the server's
 * process, if that still stands idle in this very transaction; one's own role may do that. One that is at work may be committing, and waiting for a
 * synchronous standby: ended then, it would show to all what the standby has not got.
 */
export async function endTransaction(pool: PgQueryable, { xid, pid }: Transaction): Promise<void> {
  await pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
where pid = $1 and backend_xid::text::numeric = $2::text::numeric % 4294967296 and state like 'idle in transaction%'`,
    [pid, xid],
  );
}

class NotCommitted extends Error {}

function inDoubt(cause: unknown, why: string): ReceiverError {
  return new ReceiverError('commit-in-doubt', `A COMMIT got no answer, and what has become of it can't be found out: ${why}`, { cause });
}
