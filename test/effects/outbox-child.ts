/**
 * A relay, or a publisher, in a process of its own, that kills itself where it is told to.
 *
 * argv: JSON of `ChildOptions`. A relay writes a line `orderingKey id body` for each message into a file, which stands for the broker.
 */
import '../support/ends-with-parent.ts';
import { DatabaseSync } from 'node:sqlite';
import pg from 'pg';
import { type PgPool, postgresOutbox } from '../../adapters/stores/postgres/index.ts';
import { type SqliteDatabase, type SqliteStatement, sqliteOutbox } from '../../adapters/stores/sqlite/index.ts';
import { relay } from '../../src/index.ts';
import { fileDestination } from './outbox-file.ts';

export interface ChildOptions {
  readonly does: 'relay' | 'publish';
  readonly database: { readonly file: string } | { readonly url: string; readonly schema: string };
  readonly ledger: string;
  /** Where it dies: a place, and the how-manieth time that it gets there. Without it, it ends when all is done. */
  readonly dies?: { readonly at: string; readonly time: number };
  /** Of a publisher. */
  readonly messages?: { readonly from: number; readonly to: number; readonly keys: number };
  /** A relay that goes on until it is killed. */
  readonly forEver?: boolean;
  readonly leaseMs?: number;
  readonly batchSize?: number;
  /** A send takes so long. */
  readonly sendMs?: number;
  /** The body of a message that kills whoever sends it. */
  readonly poison?: string;
  readonly maxAttempts?: number;
}

const options = JSON.parse(process.argv[2]!) as ChildOptions;
const { database, ledger, dies, leaseMs = 2_000, batchSize = 7, sendMs = 0, poison, maxAttempts = 10 } = options;
const visits = new Map<string, number>();

/** Where this process is. */
function at(place: string): void {
  const visit = (visits.get(place) ?? 0) + 1;
  visits.set(place, visit);
  if (dies?.at === place && dies.time === visit) process.kill(process.pid, 'SIGKILL');
}

/** The place that a statement stands for, if any. */
function placeOf(sql: string): string | undefined {
  if (/^commit/.test(sql)) return 'commit';
  if (/^begin/.test(sql)) return 'begin';
  if (/^delete from/.test(sql)) return 'delete';
  if (/^insert into \S*outbox \(/.test(sql)) return 'insert';
  if (/^update \S*outbox set failures = failures/.test(sql)) return 'count';
  return undefined;
}

function around<T>(place: string | undefined, run: () => T): T {
  if (place) at(`before ${place}`);
  const result = run();
  if (place && !(result instanceof Promise)) at(`after ${place}`);
  return result instanceof Promise ? (result.then((value) => (place && at(`after ${place}`), value)) as T) : result;
}

const destination = fileDestination(ledger, { at, sendMs, ...(poison && { poison }) });

async function run(outbox: any, publishAll: (first: number, keys: number, to: number) => Promise<void>): Promise<void> {
  if (options.does === 'publish') {
    const { from, to, keys } = options.messages!;
    return publishAll(from, keys, to);
  }
  const sending = relay({ outbox, to: { orders: destination }, batchSize, maxAttempts, pollMs: 20, onError: () => {} });
  await (options.forEver ? sending.run(new AbortController().signal) : sending.drain());
}

if ('file' in database) {
  const real = new DatabaseSync(database.file);
  const watched: SqliteDatabase = {
    exec: (sql) => around(placeOf(sql), () => real.exec(sql)),
    prepare(sql): SqliteStatement {
      const statement = real.prepare(sql);
      const place = placeOf(sql);
      return {
        all: (...values) => statement.all(...values),
        get: (...values) => statement.get(...values),
        run: (...values) => around(place, () => statement.run(...values)),
      };
    },
    get isTransaction() {
      return real.isTransaction;
    },
  };
  const outbox = sqliteOutbox(watched, { destinations: ['orders'], leaseMs });
  await run(outbox, async (from, keys, to) => {
    real.exec('pragma busy_timeout = 5000');
    for (let i = from; i < to; i++) {
      watched.exec('begin immediate');
      real.prepare('insert into effects values (?)').run(i);
      outbox.publish(watched, 'orders', { body: String(i), orderingKey: `k${i % keys}` });
      watched.exec('commit');
    }
  });
} else {
  const { url, schema } = database;
  const pool = new pg.Pool({ connectionString: url, max: 8 });
  pool.on('error', () => {});
  pool.on('connect', (client) => {
    const query = client.query.bind(client) as (...args: unknown[]) => unknown;
    let counting = false;
    client.query = ((...args: unknown[]) => {
      let place = placeOf(String(args[0]));
      if (place === 'commit' && counting) place = 'commit of the count';
      counting = place === 'count' && (args[1] as unknown[]).at(-1) === 1;
      return around(place, () => query(...args));
    }) as typeof client.query;
  });
  const outbox = postgresOutbox(pool as unknown as PgPool<pg.PoolClient>, { destinations: ['orders'], schema, leaseMs });
  await run(outbox, async (from, keys, to) => {
    for (let i = from; i < to; i++) {
      const client = await pool.connect();
      await client.query('begin');
      await client.query(`insert into ${schema}.effects values ($1)`, [i]);
      await outbox.publish(client, 'orders', { body: String(i), orderingKey: `k${i % keys}` });
      await client.query('commit');
      client.release();
    }
  });
  await pool.end();
}
