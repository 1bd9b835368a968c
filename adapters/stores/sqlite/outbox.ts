import { realWorld, type World } from '../../../src/clock.ts';
import {
  checkDestinations,
  type Due,
  type Fate,
  noTransaction,
  type Outbox,
  type OutboxAdmin,
  type OutboxMessage,
  type OutboxQueue,
  outgoingOf,
  type ParkedMessage,
  type Send,
  suspectsAtOnce,
} from '../../../src/effects/outbox.ts';
import { expectNumber, expectOptions, ReceiverError } from '../../../src/errors.ts';
import { connection } from './connection.ts';
import { expectDatabase, inTransaction, type SqliteDatabase, type SqliteStatement, statements } from './database.ts';
import { view } from './record.ts';
import { prepareDatabase, tableNames } from './schema.ts';

/** Options of {@link sqliteOutbox}. */
export interface SqliteOutboxOptions<Name extends string> {
  /** The names that messages may be published for. A relay says where each of them is. */
  readonly destinations: readonly Name[];
  /** That of the store in the same file. Default: `idempotent_`. */
  readonly tablePrefix?: string;
  /** How long a relay may take to send what it has taken, in milliseconds, before others send it too. Default: 60,000. */
  readonly leaseMs?: number;
  /** How long a call waits for SQLite's write lock, and for this connection, in milliseconds. Default: 5,000. */
  readonly lockTimeoutMs?: number;
  /** As in `sqliteStore`. Default: `full`. */
  readonly durability?: 'full' | 'normal';
  /** The host's clock, in milliseconds since the Unix epoch, the same for all processes that share the file. Default: `Date.now`. */
  readonly now?: () => number;
  /** Time and chance. Default: the machine's. */
  readonly world?: World;
}

/** An outbox whose messages are written, or refused, before `publish` returns. */
export interface SqliteOutbox<Name extends string> extends Outbox<SqliteDatabase, Name>, OutboxQueue<Name>, OutboxAdmin {
  publish(tx: SqliteDatabase, destination: Name, message: OutboxMessage | readonly OutboxMessage[]): void;
}

/** What one take brings into memory at most, but for a message that is longer by itself. */
const maxTakeBytes = 4_194_304;

/**
 * An outbox in a SQLite file. `publish` takes the connection that has the transaction open, in the same file: `ctx.tx`, or your own; it writes at
 * once and throws at once, so it can be used in better-sqlite3's `transaction` too. `db` is for the relay: a connection of its own, or that of
 * the `sqliteStore`.
 *
 * One relay at a time sends to a destination. Makes its tables at once. @throws ReceiverError `store` if the file can't be used, `invalid-option`
 */
export function sqliteOutbox<const Name extends string>(db: SqliteDatabase, options: SqliteOutboxOptions<Name>): SqliteOutbox<Name> {
  expectDatabase(db);
  expectOptions(options, '`{ destinations }`');
  const { destinations, tablePrefix = 'idempotent_', durability = 'full', world = realWorld, now = world.clock.wall } = options;
  checkDestinations(destinations);
  const t = tableNames(tablePrefix);
  const leaseMs = expectNumber('leaseMs', options.leaseMs ?? 60_000, { atLeast: 100, atMost: 86_400_000 });
  const lockTimeoutMs = expectNumber('lockTimeoutMs', options.lockTimeoutMs ?? 5_000, { atLeast: 0, atMost: 600_000 });
  prepareDatabase(db, t, { durability, lockTimeoutMs });
  const { read, write } = connection(db, lockTimeoutMs, world);

  const { insert, ...texts } = sqlOf(t);
  const sql = statements('the outbox was opened', () => prepareAll(db, texts));
  const inserts = new WeakMap<SqliteDatabase, SqliteStatement>();
  const underWay = new Set<Name>();
  /** Destinations that this process has sent to, and has lived. */
  const proven = new Set<Name>();
  /** To where messages that have failures are being sent. */
  let suspect: Name | undefined;
  const time = () => Math.floor(now());

  const change = <R>(doing: string, work: () => R): Promise<R> => write(() => ({ result: statements(doing, work) }));

  /** Whether these are counted as failed while they are being sent. */
  const counted = (destination: Name, rows: readonly Row[]): boolean => !proven.has(destination) || rows[0]!.failures > 0;

  /** The messages that are due, if nobody else is sending to the destination. */
  function begin(destination: Name, limit: number, token: string): Row[] {
    const at = time();
    if (Number(sql.lease.run(destination, token, at + leaseMs, at).changes) === 0) return [];
    const rows = sql.select.all(destination, at, at, limit, maxTakeBytes) as Row[];
    if (rows[0]?.failures) {
      suspect ??= destination;
      if (suspect !== destination) rows.length = 0;
    }
    if (rows.length === 0) sql.unlease.run(destination, token);
    else if (counted(destination, rows)) for (const { position } of rows) sql.countFailed.run(1, position);
    return rows;
  }

  function finish(destination: Name, token: string, rows: readonly Row[], fates: readonly Fate[]): void {
    if (Number(sql.unlease.run(destination, token).changes) === 0)
      throw new ReceiverError('claim-lost', `Expected to send to ${destination} within ${leaseMs} ms, but another relay has taken over`);
    if (counted(destination, rows)) for (const { position } of rows) sql.countFailed.run(-1, position);
    for (const [i, { position }] of rows.entries()) {
      const fate = fates[i]!;
      if (fate.as === 'parked') sql.park.run(time(), fate.reason, position);
      if (fate.as === 'again') sql.setAside.run(time() + Math.ceil(fate.afterMs), Number(fate.counted), position);
      else if (fate.as !== 'left') sql.remove.run(position);
    }
  }

  async function takeAlone(destination: Name, limit: number, send: Send): Promise<number> {
    const anything = await read(() => statements('the outbox was read', () => sql.anyDue.get(destination, time(), time())));
    if (!anything) return 0;
    const token = world.random.token();
    const rows = await change('messages were taken', () => begin(destination, limit, token));
    if (rows.length === 0) return 0;
    const fates = await send(rows.map(dueOf));
    await change('messages were removed', () => finish(destination, token, rows, fates));
    proven.add(destination);
    return rows.length;
  }

  return {
    destinations,
    takesAtOnce: 1,
    leaseMs,

    publish(tx, destination, given) {
      const messages = outgoingOf(destinations, destination, given, world.random.token);
      if (!inTransaction(tx)) throw noTransaction();
      const statement = inserts.get(tx) ?? tx.prepare(insert);
      inserts.set(tx, statement);
      for (const { id, orderingKey = null, body, headers } of messages)
        statement.run(destination, orderingKey, id, body, JSON.stringify(headers), time());
    },

    async take(destination, limit, send) {
      if (underWay.has(destination)) return 0;
      underWay.add(destination);
      try {
        return await takeAlone(destination, limit, send);
      } finally {
        underWay.delete(destination);
        if (suspect === destination) suspect = undefined;
      }
    },

    stats: () =>
      read(() =>
        statements('the outbox was counted', () =>
          (sql.count.all() as CountRow[]).map(({ destination, waiting, parked, oldest }) => ({
            destination,
            waiting,
            parked,
            oldestMs: oldest === null ? 0 : Math.max(0, time() - oldest),
          })),
        ),
      ),

    listParked: ({ limit, after = '0' }) =>
      read(() =>
        statements('parked messages were read', () =>
          (sql.firstParked.all(Number(after), limit) as ParkedRow[]).map((row) => parkedOf(row, time())),
        ),
      ),

    replay: (number) =>
      change('a parked message was replayed', () => {
        sql.unpark.run(time(), Number(number));
        return Number(sql.discard.run(Number(number)).changes) === 1;
      }),

    discard: (number) => change('a parked message was discarded', () => Number(sql.discard.run(Number(number)).changes) === 1),
  };
}

function sqlOf(t: ReturnType<typeof tableNames>) {
  const what = 'destination, ordering_key, id, body, headers';
  const shown = `${what}, failures`;
  // Arguments: destination, now, now.
  const due = `from ${t.outbox} o where o.destination = ? and (o.retry_at is null or o.retry_at <= ?) and not exists (
    select 1 from ${t.outbox} w
    where w.destination = o.destination and w.ordering_key = o.ordering_key and w.retry_at > ? and w.position < o.position)`;
  return {
    insert: `insert into ${t.outbox} (${what}, published_at) values (?, ?, ?, ?, ?, ?)`,
    anyDue: `select 1 ${due} limit 1`,
    // As many as fit, and one that does not; see 46.
    select: `select position, ${shown} from (
      select *, row_number() over up_to as place, max(failures) over up_to as worst, first_value(failures) over up_to as head,
        sum(coalesce(length(body), 0)) over up_to - coalesce(length(body), 0) as before
      from (select o.* ${due} order by position limit ?) window up_to as (order by position)
    ) where before < ? and worst = head and (head = 0 or place <= case head when 1 then ${suspectsAtOnce} else 1 end) order by position`,
    countFailed: `update ${t.outbox} set failures = failures + ? where position = ?`,
    setAside: `update ${t.outbox} set retry_at = ?, failures = failures + ? where position = ?`,
    park: `insert into ${t.outboxParked} (${what}, published_at, failures, parked_at, reason)
      select ${what}, published_at, failures + 1, ?, ? from ${t.outbox} where position = ?`,
    remove: `delete from ${t.outbox} where position = ?`,
    lease: `insert into ${t.outboxLease} (destination, token, until) values (?, ?, ?)
      on conflict (destination) do update set token = excluded.token, until = excluded.until where token = '' or until <= ?`,
    unlease: `update ${t.outboxLease} set token = '' where destination = ? and token = ?`,
    unpark: `insert into ${t.outbox} (${what}, published_at) select ${what}, ? from ${t.outboxParked} where number = ?`,
    discard: `delete from ${t.outboxParked} where number = ?`,
    firstParked: `select number, ${shown}, parked_at, reason from ${t.outboxParked} where number > ? order by number limit ?`,
    count: `select destination, sum(waiting) as waiting, sum(parked) as parked, min(oldest) as oldest from (
      select destination, count(*) as waiting, 0 as parked, min(published_at) as oldest from ${t.outbox} group by destination
      union all select destination, 0, count(*), null from ${t.outboxParked} group by destination
    ) group by destination order by destination`,
  };
}

function prepareAll<Name extends string>(db: SqliteDatabase, texts: Readonly<Record<Name, string>>): Record<Name, SqliteStatement> {
  return Object.fromEntries(Object.entries<string>(texts).map(([name, text]) => [name, db.prepare(text)])) as Record<Name, SqliteStatement>;
}

interface Row {
  readonly position: number;
  readonly destination: string;
  readonly id: string;
  readonly ordering_key: string | null;
  readonly body: Uint8Array | null;
  readonly headers: string;
  readonly failures: number;
}

interface ParkedRow extends Omit<Row, 'position'> {
  readonly number: number;
  readonly parked_at: number;
  readonly reason: string;
}

interface CountRow {
  readonly destination: string;
  readonly waiting: number;
  readonly parked: number;
  readonly oldest: number | null;
}

function dueOf({ id, ordering_key, body, headers, failures }: Omit<Row, 'position'>): Due {
  return { id, orderingKey: ordering_key ?? undefined, body: body && view(body), headers: JSON.parse(headers), failures };
}

function parkedOf(row: ParkedRow, now: number): ParkedMessage {
  const { number, destination, parked_at, reason } = row;
  return { number: String(number), destination, reason, ageMs: Math.max(0, now - parked_at), ...dueOf(row) };
}
