/**
 * What deduplication costs on Postgres, as durable as it comes: the same work (parse an order, charge an account: two statements) done in several
 * ways on one server of its own, each in a schema of its own. Once more on connections that pipeline, where a statement need not wait for the
 * answer to the one before.
 */
import { randomUUID } from 'node:crypto';
import { attribute, createReceiver, type DedupStore, type Delivery } from 'idempotent-receiver';
import { migrate, type PgPool, postgresStore } from 'idempotent-receiver/postgres';
import pg from 'pg';
import { ownService } from '../test/support/services/index.ts';
import { type Bench, type CaseResult, type Contender, comparing, sideBySide } from './bench.ts';

export const batchSize = 500;
const accounts = 1_000;
export const retainMs = 14 * 86_400_000;
const leaseMs = 30_000;

interface Order {
  readonly id: string;
  readonly account: number;
  readonly amount: number;
}

function deliveries(batch: number, size: number): Delivery[] {
  return Array.from({ length: size }, (_, i) => {
    const id = `order-${batch}-${i}`;
    const order: Order = { id, account: (batch * 7 + i * 13) % accounts, amount: 1 + (i % 100) };
    return { message: { id, body: JSON.stringify({ ...order, currency: 'EUR', lines: [{ sku: 'A-1', quantity: 2 }] }), headers: { id } } };
  });
}

/** Anything that runs SQL. */
interface Sql {
  query(text: string, values?: unknown[]): Promise<{ rowCount: number | null }>;
}

/** A pool in a schema of its own, with the tables that the work needs. */
async function place(url: string, name: string, pipeline: boolean) {
  const schema = `bench_${name}`;
  const pool = new pg.Pool({ connectionString: url, max: 10, options: `-c search_path=${schema}`, pipeline } as pg.PoolConfig);
  await pool.query(`create schema ${schema}`);
  await pool.query('create table charges (id text not null, account integer not null, amount integer not null)');
  await pool.query('create table accounts (id integer primary key, balance bigint not null) with (fillfactor = 50)');
  await pool.query(`insert into accounts select g, 0 from generate_series(0, ${accounts - 1}) g`);
  await pool.query('create table seen (id text primary key)');
  await migrate(pool as unknown as PgPool, { schema });
  return { pool, store: postgresStore<pg.PoolClient>(pool as unknown as PgPool<pg.PoolClient>, { schema }) };
}

/** The work itself, the same in every case: both statements may be on the way at once. */
async function charge(tx: Sql, { id, account, amount }: Order, pipeline: boolean): Promise<void> {
  const add = tx.query('insert into charges values ($1, $2, $3)', [id, account, amount]);
  if (!pipeline) await add;
  await Promise.all([add, tx.query('update accounts set balance = balance + $1 where id = $2', [amount, account])]);
}

const chargeAll = (tx: Sql, orders: readonly Order[]) =>
  tx.query(
    `with o as (select * from unnest($1::text[], $2::int[], $3::int[]) as o(id, account, amount)), added as (insert into charges select * from o)
update accounts a set balance = balance + s.amount from (select account, sum(amount) as amount from o group by account) s where a.id = s.account`,
    [orders.map(({ id }) => id), orders.map(({ account }) => account), orders.map(({ amount }) => amount)],
  );

const parsed = ({ message }: Delivery) => JSON.parse(message.body as string) as Order;

type Place = Awaited<ReturnType<typeof place>>;

/** Handles one batch on a connection of its own. */
type Way = (client: pg.PoolClient, all: readonly Delivery[]) => Promise<void>;

/** No dedup; with a savepoint a message, so that a failing one undoes only itself, or without. */
function grouped(pipeline: boolean, savepoints: boolean): Way {
  return async (client, all) => {
    await client.query('begin; savepoint message');
    for (const each of all) {
      const next = savepoints ? client.query('release message; savepoint message') : undefined;
      if (!pipeline) await next;
      await charge(client, parsed(each), pipeline);
      await next;
    }
    await client.query('commit');
  };
}

/** A transaction for each message, as an inbox by hand has it. */
function single(dedup: boolean): Way {
  return async (client, all) => {
    for (const each of all) {
      const order = parsed(each);
      await client.query('begin');
      const isNew = !dedup || (await client.query('insert into seen values ($1) on conflict do nothing', [order.id])).rowCount === 1;
      if (isNew) await charge(client, order, false);
      await client.query('commit');
    }
  };
}

/** Effects that one statement writes for the whole group: by hand, or behind the store's records. */
const batchedByHand: Way = async (client, all) => {
  const orders = all.map(parsed);
  await client.query('begin');
  await client.query('insert into seen select unnest($1::text[]) on conflict do nothing', [orders.map(({ id }) => id)]);
  await chargeAll(client, orders);
  await client.query('commit');
};

const batchedPlain: Way = async (client, all) => {
  await client.query('begin');
  await chargeAll(client, all.map(parsed));
  await client.query('commit');
};

async function onClient(name: string, { pool }: Place, size: number, way: Way): Promise<Contender> {
  const client = await pool.connect();
  return {
    name,
    async run(batch) {
      await way(client, deliveries(batch, size));
      return size;
    },
    close: () => {
      client.release();
      void pool.end();
    },
  };
}

const random = (bytes: number) => Buffer.from(randomUUID().replaceAll('-', '').repeat(2), 'hex').subarray(0, bytes).toString('base64url');
/** Of messages that nobody has seen. */
export const asks = (size: number) =>
  Array.from({ length: size }, () => ({ key: random(24), fingerprint: random(16), token: randomUUID(), leaseMs, retainMs }));

function batchedUnits(name: string, { pool, store }: Place): Contender {
  return {
    name,
    async run(batch) {
      const all = deliveries(batch, batchSize);
      await store.unit(async (unit) => {
        const answers = await unit.record(asks(batchSize));
        await unit.savepoint((tx) => chargeAll(tx, all.filter((_, i) => answers[i]!.state === 'claimed').map(parsed)));
      });
      return batchSize;
    },
    close: () => void pool.end(),
  };
}

/** Claims and completes batches: the store alone. */
export function claims(name: string, store: DedupStore, close = () => {}): Contender {
  return {
    name,
    async run() {
      const asked = asks(batchSize);
      const answers = await store.claim(asked);
      if (answers.some(({ state }) => state !== 'claimed')) throw new Error('Expected every claim to be given');
      await store.settle(asked.map(({ key, token }) => ({ key, token, retainMs, as: 'completed' as const })));
      return batchSize;
    },
    close,
  };
}

/** Runs batches through a receiver, and makes sure that each message was handled. */
function throughReceiver(name: string, { pool, store }: Place, size: number, pipeline: boolean): Contender {
  const receiver = createReceiver({ store, scope: 'bench', key: attribute('id'), groupSize: size }, (order: Order, { tx }) =>
    charge(tx, order, pipeline),
  );
  return {
    name,
    async run(batch) {
      const verdicts = await receiver.process(deliveries(batch, size));
      const bad = verdicts.find((verdict) => verdict.action !== 'ack' || verdict.outcome !== 'completed');
      if (bad) throw new Error(`Expected every message to be handled, got ${JSON.stringify(bad)}`);
      return size;
    },
    close: () => void receiver.stop().then(() => pool.end()),
  };
}

export const bench: Bench = async ({ seconds }) => {
  const server = await ownService('postgres');
  const { url } = server.address;
  const of = (name: string, pipeline = false) => place(url, name, pipeline);
  try {
    const names = {
      plain: `no dedup, transactions of ${batchSize}`,
      plainSavepoints: `no dedup, transactions of ${batchSize}, a savepoint per message`,
      group: `transactional, groups of ${batchSize}`,
      plainSingle: 'no dedup, a transaction per message',
      handSingle: 'dedup by hand, a transaction per message',
      single: 'transactional, a transaction per message',
      pipelined: `pipelined: no dedup, transactions of ${batchSize}`,
      pipelinedSavepoints: `pipelined: no dedup, transactions of ${batchSize}, a savepoint per message`,
      pipelinedGroup: `pipelined: transactional, groups of ${batchSize}`,
      batchedPlain: 'effects by one statement: no dedup',
      batchedHand: 'effects by one statement: dedup by hand',
      batched: 'effects by one statement: the store’s records',
      claims: `claim and complete in batches of ${batchSize}, no effects`,
    };
    const perRow = await sideBySide(
      [
        await onClient(names.plain, await of('plain'), batchSize, grouped(false, false)),
        await onClient(names.plainSavepoints, await of('plain_savepoints'), batchSize, grouped(false, true)),
        throughReceiver(names.group, await of('grouped'), batchSize, false),
        await onClient(names.plainSingle, await of('plain_single'), 50, single(false)),
        await onClient(names.handSingle, await of('hand_single'), 50, single(true)),
        throughReceiver(names.single, await of('single'), 1, false),
        await onClient(names.pipelined, await of('pipelined', true), batchSize, grouped(true, false)),
        await onClient(names.pipelinedSavepoints, await of('pipelined_savepoints', true), batchSize, grouped(true, true)),
        throughReceiver(names.pipelinedGroup, await of('pipelined_grouped', true), batchSize, true),
      ],
      { seconds },
    );
    const claiming = await of('claims');
    const batched = await sideBySide(
      [
        await onClient(names.batchedPlain, await of('batched_plain'), batchSize, batchedPlain),
        await onClient(names.batchedHand, await of('batched_hand'), batchSize, batchedByHand),
        batchedUnits(names.batched, await of('batched')),
        claims(names.claims, claiming.store, () => void claiming.pool.end()),
      ],
      { seconds },
    );
    const cases: readonly CaseResult[] = [...perRow, ...batched];
    const compare = comparing(cases);
    return {
      cases,
      aims: [
        { name: 'groups of 500 against the same effects without dedup', ...compare(names.group, names.plainSavepoints), atLeast: 0.85 },
        { name: 'the same, pipelined', ...compare(names.pipelinedGroup, names.pipelinedSavepoints), atLeast: 0.85 },
        { name: 'groups of 500 against dedup by hand, a transaction per message', ...compare(names.group, names.handSingle), atLeast: 5 },
        { name: 'the same, pipelined', ...compare(names.pipelinedGroup, names.handSingle), atLeast: 5 },
        {
          name: 'effects by one statement against dedup by hand, a transaction per message',
          ...compare(names.batched, names.handSingle),
          atLeast: 5,
        },
        { name: 'effects by one statement against the same without dedup', ...compare(names.batched, names.batchedPlain), atLeast: 0.85 },
        {
          name: 'effects by one statement against dedup by hand in the same groups',
          ...compare(names.batched, names.batchedHand),
          atLeast: 0.85,
        },
      ],
    };
  } finally {
    await server.stop();
  }
};
