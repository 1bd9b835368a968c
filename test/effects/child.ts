/**
 * A worker for one delivery of one message, in a process of its own, that dies at the n-th place where it waits for something, or is stopped
 * there until it is told to go on. Its argument is a `Task`, as JSON. Prints "here <place>" when it is stopped, and in the end its verdict.
 */
import '../support/ends-with-parent.ts';
import { DatabaseSync } from 'node:sqlite';
import { postgresStore } from '../../adapters/stores/postgres/index.ts';
import { redisStore } from '../../adapters/stores/redis/index.ts';
import { sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import {
  attribute,
  type Context,
  createReceiver,
  type DedupStore,
  insertOnce,
  type Journal,
  type SqliteTx,
  type SqlTx,
  TerminalError,
} from '../../src/index.ts';
import { gatewayClient } from '../support/gateway.ts';

export type Program =
  | 'no helper'
  | 'keys alone'
  | 'step'
  | 'fenced step'
  | 'confirm'
  | 'patient confirm'
  | 'saga'
  | 'refused saga'
  | 'values'
  | 'row'
  | 'row once';

export interface Task {
  /** `sqlite:FILE`, `postgres:URL SCHEMA` or `redis:URL PREFIX`. */
  readonly store: string;
  readonly gateway: string;
  /** The message's. What moves at the gateway begins with it. */
  readonly id: string;
  readonly program: Program;
  /** Which of the places to die or to stop at, from 1; 0 for none. */
  readonly at: number;
  readonly signal: 'SIGKILL' | 'SIGSTOP';
  readonly leaseMs: number;
}

type Handler = (ctx: Context<'fenced', never, true>) => Promise<unknown>;
const { store: spec, gateway: url, id, program, at, signal, leaseMs } = JSON.parse(process.argv[2]!) as Task;
const gateway = gatewayClient(url);
const places: string[] = [];

/** A place where this worker waits for something, and where it may be gone. */
async function place(name: string): Promise<void> {
  places.push(name);
  if (places.length !== at) return;
  if (signal === 'SIGKILL') process.kill(process.pid, 'SIGKILL');
  const resumed = new Promise((resolve) => process.stdin.once('data', resolve));
  process.stdout.write(`here ${name}\n`);
  await resumed;
}

async function move(what: string, options: { key?: string; fence?: number } = {}): Promise<number> {
  await place(`before ${what}`);
  const transfer = await gateway.move(`${id} ${what}`, options);
  await place(`after ${what}`);
  return transfer;
}

/** Asks whether a transfer has happened. `certainAfterMs`: how long a request of the dead may still be on its way. */
const confirm =
  (certainAfterMs: number) =>
  async (key: string, { ageMs }: { ageMs: number }) => {
    const found = await gateway.find(key);
    if (found) return { done: found.id };
    return ageMs > certainAfterMs ? ('absent' as const) : ('unknown' as const);
  };

const saga =
  (refused: boolean): Handler =>
  (ctx) =>
    ctx.saga('trip', async (saga) => {
      for (const name of ['flight', 'hotel']) {
        await saga.step(name, ({ key }) => move(name, { key }), { undo: (_, { key }) => move(`undo ${name}`, { key }) });
      }
      await saga.step('car', ({ key }) => {
        if (refused) throw new TerminalError('no car is left');
        return move('car', { key });
      });
    });

/** A row in a database of one's own, without the receiver's transaction. */
async function insert(once: boolean): Promise<void> {
  const table = `${charges}${once ? '_once' : ''}`;
  await place('before insert');
  if (once) await insertOnce(sql!, table, { id });
  else if ('prepare' in sql!) sql.prepare(`insert into ${table} values (?)`).all(id);
  else await sql!.query(`insert into ${table} values ($1)`, [id]);
  await place('after insert');
}

const programs: Readonly<Record<Program, Handler>> = {
  'no helper': () => move('charge'),
  'keys alone': (ctx) => move('charge', { key: ctx.key('charge') }),
  step: (ctx) => ctx.step('charge', ({ key }) => move('charge', { key })),
  'fenced step': (ctx) => ctx.step('charge', ({ key, fence }) => move('charge', { key, fence })),
  confirm: (ctx) => ctx.step('charge', ({ key }) => move('charge', { key }), { confirm: confirm(0) }),
  'patient confirm': (ctx) => ctx.step('charge', ({ key }) => move('charge', { key }), { confirm: confirm(60_000) }),
  saga: saga(false),
  'refused saga': saga(true),
  // Without a key, so that each attempt tells what it was given.
  values: async (ctx) => move(`${await ctx.now()} ${ctx.uuid('a')} ${ctx.random('a')}`),
  row: () => insert(false),
  'row once': () => insert(true),
};

/** Where rows are written, if the store is a SQL database: `charges` (id), and `charges_once`, whose id is its primary key. */
let sql: SqlTx | SqliteTx | undefined;
let charges = 'charges';

async function openStore(): Promise<DedupStore & Journal> {
  const [, kind, where, name] = /^(\w+):(\S+)(?: (\S+))?$/.exec(spec)!;
  switch (kind) {
    case 'sqlite': {
      const store = sqliteStore(new DatabaseSync(where!));
      const own = new DatabaseSync(where!);
      own.exec(
        'pragma busy_timeout = 5000; create table if not exists charges (id text); create table if not exists charges_once (id text primary key)',
      );
      sql = own;
      return store;
    }
    case 'postgres': {
      const { Pool } = (await import('pg')).default;
      const pool = new Pool({ connectionString: where!, max: 4 });
      sql = pool;
      charges = `${name}.charges`;
      return postgresStore(pool as never, { schema: name! });
    }
    case 'redis': {
      const { Redis } = await import('ioredis');
      return redisStore(new Redis(where!), { prefix: name! });
    }
    default:
      throw new Error(`Expected a store, got ${spec}`);
  }
}

const real = await openStore();
// Connected, so that what follows takes no longer than it does in a worker that has been running.
await real.readEntries([{ key: 'k'.repeat(32), token: 't' }]);
const watched: DedupStore & Journal = {
  ...real,
  claim: (asks) => around('claim', () => real.claim(asks)),
  settle: (ends) => around('settle', () => real.settle(ends)),
  readEntries: (claims) => around('read', () => real.readEntries(claims)),
  writeEntries: (writes) => around(`write ${writes.map(({ name, state }) => `${name} ${state}`)}`, () => real.writeEntries(writes)),
};

async function around<T>(name: string, call: () => Promise<T>): Promise<T> {
  await place(`before ${name}`);
  const answer = await call();
  await place(`after ${name}`);
  return answer;
}

const receiver = createReceiver(
  {
    ...{
      scope: 'child',
      key: attribute('id'),
      store: watched,
      guarantee: 'fenced',
      leaseMs,
      storeTimeoutMs: leaseMs * 0.9,
      maxAttempts: 100,
    },
    backoff: { firstMs: 50, maxMs: 400 },
  },
  (_, ctx) => programs[program](ctx),
);
const [verdict] = await receiver.process([{ message: { id, body: '{}', headers: { id } } }]);
const rows: string[] = [];
if (sql && program.startsWith('row')) {
  const { text, values } = { text: `select id from ${charges}${program === 'row once' ? '_once' : ''} where id = `, values: [id] };
  rows.push(...('prepare' in sql ? sql.prepare(`${text}?`).all(...values) : (await sql.query(`${text}$1`, values)).rows).map(() => 'row'));
}
process.stdout.write(`${JSON.stringify({ verdict, places, rows })}\n`);
await receiver.stop();
process.exit(0);
