/**
 * Postgres with 10 million remembered ids: what their number costs, and whether anybody notices a purge of one million. In one table, and in daily
 * or weekly partitions. Takes minutes, most of them to fill the tables. IDS=… for another number; BENCH_POSTGRES_URL=… for a server whose tables stay, and are
 * not filled again.
 */
import { randomUUID } from 'node:crypto';
import { totalmem } from 'node:os';
import { migrate, type Partitions, type PgPool, postgresStore, type SchemaOptions } from 'idempotent-receiver/postgres';
import pg from 'pg';
import { ownService } from '../test/support/services/index.ts';
import { type Bench, type Contender, comparing, sideBySide } from './bench.ts';
import { asks, batchSize, claims, retainMs } from './postgres.ts';

/** A quarter of the machine's memory, as PostgreSQL's manual advises, so that the indexes fit in; the default is 128 MB. */
const settings = [`shared_buffers=${Math.round(totalmem() / 4 / 2 ** 20)}MB`, 'max_wal_size=8GB'];

const many = Number(process.env['IDS'] ?? 10_000_000);
const expired = many / 10;
/** As long as records are remembered. */
const days = retainMs / 86_400_000;
const warmUpMs = 8_000;

const key = "substr(sha256(convert_to($1 || g, 'UTF8')), 1, 24)";
const columns = `key, fingerprint, state, token, fence, attempts, orphaned, lease_until, written_at, expires_at, expires_minute`;
/** Records that were completed at regular times of the last `days`, or a while before. */
const remembered = (age: string, to: number) =>
  `select ${key}, substr(sha256(int8send(g)), 1, 16), 3, '${randomUUID()}', g, 1, false, at, at, at + interval '${days} days',
  ceil(extract(epoch from at + interval '${days} days') / 60)
from generate_series(1, ${to}) g, lateral (select now() - ${age} as at) t`;

type Place = Awaited<ReturnType<typeof place>>;

async function place(url: string, name: string, partitions?: Partitions) {
  const schema = `remembered_${name}`;
  const pool = new pg.Pool({ connectionString: url, max: 10 });
  const options: SchemaOptions = partitions ? { schema, partitions } : { schema };
  const { rows } = await pool.query('select to_regnamespace($1) is not null as there', [schema]);
  const isNew = !rows[0].there;
  await migrate(pool as unknown as PgPool, options);
  return { pool, schema, isNew, partitions, store: postgresStore<pg.PoolClient>(pool as unknown as PgPool<pg.PoolClient>, options) };
}

const daysOf: Readonly<Record<Partitions, number>> = { daily: 1, weekly: 7 };

/** Partitions as they are after so many of their turns. */
async function pass({ pool, schema, partitions }: Place, turns: number): Promise<void> {
  for (let i = 0; i < turns; i++) {
    await pool.query(`update ${schema}.meta set part_began_at = part_began_at - interval '${daysOf[partitions!]} days'`);
    await pool.query(`select ${schema}.upkeep()`);
  }
}

async function fill(to: Place, ids: number): Promise<void> {
  const { pool, schema, partitions, isNew } = to;
  if (!isNew) return;
  if (partitions) {
    const turn = daysOf[partitions];
    const parts = days / turn;
    await pass(to, parts);
    for (let part = 1; part <= parts; part++) {
      const age = `interval '1 hour' - (${part} - ${parts} - 1) * interval '${turn} days' + random() * interval '${turn} days'`;
      await pool.query(
        `insert into ${schema}.records_${part} (part, ${columns}) select ${part}, * from (${remembered(age, Math.floor(ids / parts))}) r`,
        [`${part}/`],
      );
    }
  } else {
    const age = `(1 - g::float8 / ${ids}) * interval '${days} days' + interval '1 hour'`;
    await pool.query(`insert into ${schema}.records (${columns}) ${remembered(age, ids)}`, ['']);
  }
  await pool.query(`vacuum analyze ${schema}.records`);
}

/** Groups that write an effect for each message by one statement, behind the store's records. */
function groups(name: string, { pool, schema, store }: Place): Contender {
  const table = `${schema}.effects`;
  const ready = pool.query(`create table if not exists ${table} (id text not null, at timestamptz not null default now())`);
  return {
    name,
    async run() {
      await ready;
      const asked = asks(batchSize);
      await store.unit(async (unit) => {
        const answers = await unit.record(asked);
        if (answers.some(({ state }) => state !== 'claimed')) throw new Error('Expected every message to be new');
        await unit.savepoint((tx) => tx.query(`insert into ${table} (id) select unnest($1::text[])`, [asked.map(({ token }) => token)]));
      });
      return batchSize;
    },
    close: () => {},
  };
}

async function warmUp(contender: Contender): Promise<void> {
  for (const endAt = performance.now() + warmUpMs; performance.now() < endAt; ) await contender.run(0);
}

/** The slowest of the claims that two claimers make, one after another, until `work` is done. */
async function slowestClaim(
  { store }: Place,
  work: () => Promise<unknown>,
): Promise<{ readonly slowestMs: number; readonly claims: number }> {
  let over = false;
  let slowestMs = 0;
  let count = 0;
  const claimer = async () => {
    for (; !over; count++) {
      const startedAt = performance.now();
      await store.claim(asks(1));
      slowestMs = Math.max(slowestMs, performance.now() - startedAt);
    }
  };
  const claimers = [claimer(), claimer()];
  await work();
  over = true;
  await Promise.all(claimers);
  return { slowestMs: Math.round(slowestMs), claims: count };
}

export const bench: Bench = async ({ seconds }) => {
  const given = process.env['BENCH_POSTGRES_URL'];
  const server = given ? undefined : await ownService('postgres', settings);
  const url = given ?? server!.address.url;
  const places: Place[] = [];
  const of = async (name: string, ids: number, partitions?: Partitions) => {
    const made = await place(url, name, partitions);
    places.push(made);
    if (ids > 0) await fill(made, ids);
    return made;
  };
  try {
    const full = await of('full', many);
    const fullDaily = await of('full_daily', many, 'daily');
    const fullWeekly = await of('full_weekly', many, 'weekly');
    if (process.argv.includes('--fill')) return { cases: [], aims: [] };
    await full.pool.query('drop schema if exists remembered_empty, remembered_old, remembered_old_partitions cascade');
    const empty = await of('empty', 0);
    const old = await of('old', 0);
    const oldParts = await of('old_partitions', 0, 'daily');

    const label = many.toLocaleString('en');
    const names = {
      empty: 'transactional, groups of 500: empty table',
      full: `transactional, groups of 500: ${label} records`,
      daily: `transactional, groups of 500: ${label} records in daily partitions`,
      weekly: `transactional, groups of 500: ${label} records in weekly partitions`,
      emptyClaims: 'claim and complete: empty table',
      fullClaims: `claim and complete: ${label} records`,
      dailyClaims: `claim and complete: ${label} records in daily partitions`,
      weeklyClaims: `claim and complete: ${label} records in weekly partitions`,
    };
    const contenders = [
      groups(names.empty, empty),
      groups(names.full, full),
      groups(names.daily, fullDaily),
      groups(names.weekly, fullWeekly),
      claims(names.emptyClaims, empty.store),
      claims(names.fullClaims, full.store),
      claims(names.dailyClaims, fullDaily.store),
      claims(names.weeklyClaims, fullWeekly.store),
    ];
    await full.pool.query('checkpoint');
    // The first write to a page after a checkpoint costs a whole page of log, which random keys of so many pages pay for a while.
    for (const each of contenders) await warmUp(each);
    const cases = await sideBySide(contenders, { seconds });

    const age = `interval '${days + 1} days' + interval '2 hours'`;
    await old.pool.query(`insert into ${old.schema}.records (${columns}) ${remembered(age, expired)}`, ['old/']);
    await oldParts.pool.query(
      `insert into ${oldParts.schema}.records_1 (part, ${columns}) select 1, * from (${remembered(age, expired)}) r`,
      ['old/'],
    );
    await pass(oldParts, 2);
    await old.pool.query('checkpoint');
    const idle = await slowestClaim(old, () => new Promise((resolve) => setTimeout(resolve, 5_000)));
    const startedAt = performance.now();
    const rows = await slowestClaim(old, async () => {
      while ((await old.store.purge(500)) === 500);
    });
    const rowSeconds = (performance.now() - startedAt) / 1_000;
    const left = async () =>
      (await oldParts.pool.query('select to_regclass($1) is not null as there', [`${oldParts.schema}.records_1`])).rows[0].there;
    const dropped = await slowestClaim(oldParts, async () => {
      while (await left()) await oldParts.store.purge(500);
      await new Promise((resolve) => setTimeout(resolve, 3_000));
    });
    const compare = comparing(cases);
    const gone = expired.toLocaleString('en');
    return {
      cases,
      aims: [
        { name: `transactional: ${label} records against an empty table`, ...compare(names.full, names.empty), atLeast: 0.8 },
        { name: 'the same in 14 daily partitions', ...compare(names.daily, names.empty), atLeast: 0.8 },
        { name: 'the same in 2 weekly partitions', ...compare(names.weekly, names.empty), atLeast: 0.8 },
        {
          name: `claim and complete: ${label} records against an empty table`,
          ...compare(names.fullClaims, names.emptyClaims),
          atLeast: 0.8,
        },
        { name: 'the same in 14 daily partitions', ...compare(names.dailyClaims, names.emptyClaims), atLeast: 0.8 },
        { name: 'the same in 2 weekly partitions', ...compare(names.weeklyClaims, names.emptyClaims), atLeast: 0.8 },
        {
          name: `slowest claim in ms while ${gone} rows are purged by 500, in ${Math.round(rowSeconds)} s (${idle.slowestMs} without)`,
          measured: rows.slowestMs,
          atMost: 100,
        },
        { name: `slowest claim in ms while a partition of ${gone} is dropped`, measured: dropped.slowestMs, atMost: 100 },
      ],
    };
  } finally {
    for (const { pool } of places) await pool.end();
    await server?.stop();
  }
};
