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
  type Send,
  suspectsAtOnce,
} from '../../../src/effects/outbox.ts';
import type { SqlTx } from '../../../src/effects/sql.ts';
import { expectNumber, expectOptions, ReceiverError, refuseOption } from '../../../src/errors.ts';
import { isIdle, type PgClient, type PgPool, type PgQueryable, type PgResult } from './client.ts';
import { type Names, namesOf, type SchemaOptions } from './names.ts';
import { outboxAdmin } from './outbox-admin.ts';
import { shardOf, shards } from './outbox-schema.ts';
import { type BoundedPool, boundedPool, patient } from './pool.ts';
import { checker } from './schema.ts';

/** Options of {@link postgresOutbox}. */
export interface PostgresOutboxOptions<Name extends string> extends SchemaOptions {
  /** The names that messages may be published for. A relay says where each of them is. */
  readonly destinations: readonly Name[];
  /**
   * Whether a relay is woken by NOTIFY as soon as something was published, instead of looking now and then. It needs a connection of its own, which
   * PgBouncer in transaction mode does not have. Postgres lets transactions that notify commit one after another. Default: false.
   */
  readonly notify?: boolean;
  /** How long a relay may take to send what it has taken, in milliseconds, before others send it too. Default: 60,000. */
  readonly leaseMs?: number;
  /** Batches that a relay sends to one destination at the same time, each on a connection of its own. Default: 2. */
  readonly takesAtOnce?: number;
  /** As in `postgresStore`. Default: false. */
  readonly allowDataLoss?: boolean;
  /** Chance. Default: the machine's. */
  readonly world?: World;
}

/** An outbox whose messages are written when the promise of `publish` resolves. */
export interface PostgresOutbox<Name extends string> extends Outbox<SqlTx, Name>, OutboxQueue<Name>, OutboxAdmin {
  publish(tx: SqlTx, destination: Name, message: OutboxMessage | readonly OutboxMessage[]): Promise<void>;
}

/** What one take brings into memory at most, but for a message that is longer by itself. */
const maxTakeBytes = 4_194_304;
/** Of one INSERT: parameters are counted in 16 bits. */
const maxRows = 1_000;

/**
 * An outbox in PostgreSQL 14 or later, in the schema of the store. `publish` takes the client that has the transaction open (a pg `Client`, `ctx.tx`),
 * or a transaction of an ORM by way of `idempotent-receiver/sql`. `pool` is for the relay. Run `migrate(pool)` before, at deployment.
 *
 * Relays hold locks on shards, which end with their connections: a killed one's messages are sent by others at once, those of one that hangs after
 * `leaseMs`. What was sent is deleted in the transaction that holds the lock. A connection that has not answered for twice as long is cut off.
 *
 * @throws ReceiverError `invalid-option`
 */
export function postgresOutbox<const Name extends string, Client extends PgClient>(
  pool: PgPool<Client>,
  options: PostgresOutboxOptions<Name>,
): PostgresOutbox<Name> {
  if (typeof pool?.query !== 'function' || typeof pool.connect !== 'function') refuseOption('pool', 'a pg Pool', pool);
  expectOptions(options, '`{ destinations }`');
  const { destinations, notify = false, allowDataLoss = false, world = realWorld } = options;
  checkDestinations(destinations);
  const leaseMs = expectNumber('leaseMs', options.leaseMs ?? 60_000, { atLeast: 100, atMost: 86_400_000, integer: true });
  const takesAtOnce = expectNumber('takesAtOnce', options.takesAtOnce ?? 2, { atLeast: 1, atMost: shards, integer: true });
  const names = namesOf(options);
  // Longer than another relay may hold a shard's lock.
  const silenceMs = 2 * leaseMs;
  const bounded = boundedPool(pool, world.clock, silenceMs);
  const ready = checker(bounded, names, { allowDataLoss });
  const known = new Map<Name, Promise<unknown>>();
  const sql = sqlOf(names, leaseMs, notify);
  /** Shards from which this process has sent, and has lived. */
  const proven = new Set<string>();
  /** Shards of which messages are being counted, which gives up their locks for a moment: two takes of one process would count one death twice. */
  const counting = new Set<string>();
  /** Messages that have failures are being sent. */
  let suspect = false;
  /** Where the next take begins to look, so that all shards have their turn. */
  let turn = Math.floor(world.random.number() * shards);

  async function prepare(destination: Name): Promise<void> {
    await ready();
    const made = known.get(destination) ?? bounded.query(sql.makeShards, [destination]);
    known.set(destination, made);
    await made.catch((error: unknown) => {
      known.delete(destination);
      throw error;
    });
  }

  /** Begins a transaction and takes the lock of a shard that has messages. */
  async function begin(client: PgQueryable, destination: Name, tried: readonly number[]): Promise<number | undefined> {
    turn = (turn + 1) % shards;
    const results = (await client.query(sql.begin(destination, turn, tried))) as unknown as readonly PgResult[];
    return results.at(-1)!.rows[0]?.shard;
  }

  /**
   * Counts messages as failed in a transaction of its own, and takes that back in the next one, which is still open when they are sent. False if
   * another relay came in between, and not all of them are due any more.
   */
  async function countFailed(client: PgQueryable, destination: Name, shard: number, rows: readonly Row[]): Promise<boolean> {
    const positions = rows.map(({ position }) => position);
    const place = shardName(destination, shard);
    counting.add(place);
    try {
      await client.query(sql.countFailed, [destination, shard, positions, 1]);
      await client.query('commit');
      await client.query(sql.beginOn(destination, shard));
    } finally {
      counting.delete(place);
    }
    const { rows: found } = await client.query(sql.countFailed, [destination, shard, positions, -1]);
    return found.length === rows.length && found.every(({ due }) => due);
  }

  async function finish(
    client: PgQueryable,
    destination: Name,
    shard: number,
    rows: readonly Row[],
    fates: readonly Fate[],
  ): Promise<void> {
    const sent: string[] = [];
    for (const [i, { position }] of rows.entries()) {
      const fate = fates[i]!;
      const row = [destination, shard, position];
      if (fate.as === 'sent') sent.push(position);
      if (fate.as === 'again') await client.query(sql.setAside, [...row, fate.afterMs, Number(fate.counted)]);
      if (fate.as === 'parked') await client.query(sql.park, [...row, fate.reason]);
    }
    if (sent.length > 0) await client.query(sql.remove, [destination, shard, sent]);
    const { command } = await client.query('commit');
    if (command !== undefined && command !== 'COMMIT')
      throw new ReceiverError('store', `Expected the relay's transaction to commit, got ${command}`);
  }

  async function takeOn(client: PgQueryable, destination: Name, limit: number, send: Send): Promise<number> {
    const tried: number[] = [];
    for (let shard = await begin(client, destination, tried); shard !== undefined; shard = await begin(client, destination, tried)) {
      // After the lock, so that what its last owner has deleted is not seen any more.
      const rows = (await client.query(sql.select, [destination, shard, limit, maxTakeBytes])).rows as Row[];
      const place = shardName(destination, shard);
      const suspected = rows.length > 0 && rows[0]!.failures > 0;
      // None: all of them are set aside.
      if (rows.length > 0 && !counting.has(place) && !(suspected && suspect)) {
        suspect ||= suspected;
        try {
          if ((!suspected && proven.has(place)) || (await countFailed(client, destination, shard, rows))) {
            await finish(client, destination, shard, rows, await send(rows.map(dueOf)));
            proven.add(place);
            return rows.length;
          }
        } finally {
          if (suspected) suspect = false;
        }
      }
      tried.push(shard);
      await client.query('commit');
    }
    await client.query('rollback');
    return 0;
  }

  return {
    destinations,
    takesAtOnce,
    leaseMs,
    ...outboxAdmin(bounded, names, ready),

    async publish(tx, destination, given) {
      const messages = outgoingOf(destinations, destination, given, world.random.token);
      if (isIdle(tx)) throw noTransaction();
      for (let at = 0; at < messages.length; at += maxRows) {
        const rows = messages.slice(at, at + maxRows);
        const values = rows.flatMap(({ id, orderingKey = null, body, headers }) => [
          shardOf(orderingKey ?? id),
          orderingKey,
          id,
          body,
          JSON.stringify(headers),
        ]);
        await tx.query(sql.insert(rows.length), [destination, ...values]);
      }
    },

    async take(destination, limit, send) {
      await prepare(destination);
      const { client, giveBack } = await bounded.take();
      let broken: Error | undefined;
      try {
        return await takeOn(patient(client, world.clock, silenceMs), destination, limit, send);
      } catch (error) {
        // With the connection its transaction ends, whatever state it is in.
        broken = error instanceof Error ? error : new Error(String(error));
        throw error;
      } finally {
        giveBack(broken);
      }
    },

    ...(notify && { listen: (wake, signal) => listen(bounded, (client) => patient(client, world.clock, silenceMs), names, wake, signal) }),
  };
}

function sqlOf(names: Names, leaseMs: number, notify: boolean) {
  const { outbox, outboxShards, outboxParked, outboxChannel } = names;
  const what = 'destination, shard, ordering_key, id, body, headers';
  const row = 'destination = $1 and shard = $2 and position = $3';
  const types = ['text', 'smallint', 'text', 'text', 'bytea', 'text'].map((type) => `::${type}`);

  /** Parameters: the destination, then five for each row. */
  function insert(count: number, casts: readonly string[]): string {
    const row = (at: number) => casts.map((cast, i) => `$${i === 0 ? 1 : at * 5 + i + 1}${cast}`).join(', ');
    const text = `insert into ${outbox} (${what}) values ${Array.from({ length: count }, (_, at) => `(${row(at)})`).join(', ')}`;
    return notify ? `with written as (${text}) select pg_notify(${outboxChannel}, $1)::text` : text;
  }

  const begin = `begin isolation level read committed;
set local synchronous_commit = off; set local idle_in_transaction_session_timeout = ${leaseMs}`;
  // The parameters of a single row have the types of their columns by themselves.
  const insertOne = insert(
    1,
    types.map(() => ''),
  );
  return {
    makeShards: `insert into ${outboxShards} (destination, shard) select $1::text, generate_series(0, ${shards - 1}) on conflict do nothing`,

    /** Names of destinations have no quotes in them. The commit need not be durable: what it forgets is sent again. */
    begin: (destination: string, turn: number, tried: readonly number[]) => `${begin};
select shard from ${outboxShards} s where destination = '${destination}' and shard <> all ('{${tried.join()}}')
  and exists (select from ${outbox} o where o.destination = s.destination and o.shard = s.shard)
order by (shard + ${shards - turn}) % ${shards} limit 1 for update skip locked`,
    beginOn: (destination: string, shard: number) => `${begin};
select from ${outboxShards} where destination = '${destination}' and shard = ${shard} for update`,

    // As many as fit, and one that does not; see 46.
    select: `select position, ordering_key, id, body, headers, failures from (
  select *, row_number() over up_to as place, max(failures) over up_to as worst, first_value(failures) over up_to as head,
    sum(coalesce(octet_length(body), 0)) over up_to - coalesce(octet_length(body), 0) as before
  from (
    select * from ${outbox} o
    where destination = $1 and shard = $2 and (retry_at is null or retry_at <= statement_timestamp()) and not exists (
      select from ${outbox} w where w.destination = o.destination and w.shard = o.shard and w.ordering_key = o.ordering_key
        and w.retry_at > statement_timestamp() and w.position < o.position)
    order by position limit $3
  ) due window up_to as (order by position)
) counted where before < $4 and worst = head and (head = 0 or place <= case head when 1 then ${suspectsAtOnce} else 1 end) order by position`,

    countFailed: `update ${outbox} set failures = failures + $4 where destination = $1 and shard = $2 and position = any ($3::bigint[])
returning (retry_at is null or retry_at <= statement_timestamp()) as due`,

    remove: `delete from ${outbox} where destination = $1 and shard = $2 and position = any ($3::bigint[])`,
    setAside: `update ${outbox} set retry_at = statement_timestamp() + $4 * interval '1 ms', failures = failures + $5 where ${row}`,
    park: `with gone as (delete from ${outbox} where ${row} returning *)
insert into ${outboxParked} (${what}, published_at, failures, reason) select ${what}, published_at, failures + 1, $4 from gone`,

    insert: (count: number) => (count === 1 ? insertOne : insert(count, types)),
  };
}

const shardName = (destination: string, shard: number): string => `${destination} ${shard}`;

interface Row {
  readonly position: string;
  readonly ordering_key: string | null;
  readonly id: string;
  readonly body: Buffer | null;
  readonly headers: string;
  readonly failures: number;
}

function dueOf({ id, ordering_key, body, headers, failures }: Row): Due {
  return { id, orderingKey: ordering_key ?? undefined, body, headers: JSON.parse(headers), failures };
}

/** Waits on a connection of its own until `signal` is aborted or the connection breaks. */
async function listen<Client extends PgClient>(
  pool: BoundedPool<Client>,
  asking: (client: Client) => PgQueryable,
  { outboxChannel }: Names,
  wake: (destination: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { client, giveBack } = await pool.take();
  const over = new AbortController();
  try {
    const ended = new Promise<void>((resolve, reject) => {
      const on = client.on as (event: string, listener: (given: any) => void) => unknown;
      on.call(client, 'error', reject);
      on.call(client, 'end', () => reject(new Error('The connection that listens was closed')));
      on.call(client, 'notification', ({ payload }: { payload?: string }) => wake(payload ?? ''));
      signal.addEventListener('abort', () => resolve(), { signal: over.signal });
    });
    ended.catch(() => {});
    await asking(client).query(`listen "${outboxChannel.slice(1, -1)}"`);
    if (!signal.aborted) await ended;
  } finally {
    over.abort();
    giveBack(new Error('It has listened, and would go on'));
  }
}
