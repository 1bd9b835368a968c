import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { migrate, migrationSql, type PgPool, postgresStore, recordOnce } from '../../../adapters/stores/postgres/index.ts';
import { schemaVersion } from '../../../adapters/stores/postgres/schema.ts';
import { attribute, createReceiver } from '../../../src/index.ts';
import { ask, single } from '../../../src/testing/clauses/kit.ts';
import { ownService, service } from '../../support/services/index.ts';
import { actions, delivery } from '../../support/stand.ts';
import { unique } from '../../support/unique.ts';
import { poolOf } from './postgres-harness.ts';

let db: pg.Pool;
let schema: string;
const pool = () => db as unknown as PgPool<pg.PoolClient>;
beforeAll(async () => {
  db = poolOf({ connectionString: (await service('postgres')).url });
  schema = unique('schema');
});
afterEach(() => db.query(`drop schema if exists ${schema} cascade`));
afterAll(() => db.end());

describe('migrate', () => {
  it('can be run again, and by sixteen at once', async () => {
    await Promise.all(Array.from({ length: 16 }, () => migrate(pool(), { schema })));
    await migrate(pool(), { schema });
    expect((await single(postgresStore(pool(), { schema })).claim('a', 't')).state).toBe('claimed');
    expect((await db.query(`select version from ${schema}.meta`)).rows).toEqual([{ version: schemaVersion }]);
  });

  it('is text too, for those who run their migrations themselves', async () => {
    await db.query(migrationSql({ schema }));
    expect((await single(postgresStore(pool(), { schema })).claim('a', 't')).state).toBe('claimed');
  });

  it('keeps what is there', async () => {
    await migrate(pool(), { schema });
    const { claim } = single(postgresStore(pool(), { schema }));
    await claim('a', 't');
    await migrate(pool(), { schema });
    expect((await claim('a', 'u')).state).toBe('busy');
  });

  it('makes partitions where they are asked for, weekly ones of daily ones, and none of one table', async () => {
    await migrate(pool(), { schema, partitions: 'daily' });
    const { claim } = single(postgresStore(pool(), { schema, partitions: 'daily' }));
    await claim('a', 't');
    await migrate(pool(), { schema, partitions: 'weekly' });
    expect((await single(postgresStore(pool(), { schema, partitions: 'weekly' })).claim('a', 'u')).state).toBe('busy');
    await expect(migrate(pool(), { schema })).rejects.toThrow(
      /Expected one table in .*, got partitions: leave the option `partitions` as it was/,
    );
    await db.query(`drop schema ${schema} cascade`);
    await migrate(pool(), { schema });
    await expect(migrate(pool(), { schema, partitions: 'daily' })).rejects.toThrow(/Expected partitions in .*, got one table/);
    await db.query(`update ${schema}.meta set version = 3`);
    await expect(migrate(pool(), { schema, partitions: 'daily' })).rejects.toThrow(/Expected partitions in .*, got one table/);
  });

  it('gives tables of the version before what they lack', async () => {
    await migrate(pool(), { schema });
    await db.query(
      `alter table ${schema}.meta drop partitions, drop part, drop closed_part, drop part_began_at; update ${schema}.meta set version = 3;
drop function ${schema}.take, ${schema}.settle, ${schema}.extend, ${schema}.amend, ${schema}.refuse_commit`,
    );
    await expect(postgresStore(pool(), { schema }).claim([ask('a', 't')])).rejects.toThrow('run `migrate(pool)`');
    await migrate(pool(), { schema });
    expect((await single(postgresStore(pool(), { schema })).claim('a', 't')).state).toBe('claimed');
  });

  it.each(['a"b', 'a b', '1a', '', `x'; drop table y`])('refuses %j as a schema', async (name) => {
    await expect(migrate(pool(), { schema: name })).rejects.toMatchObject({ code: 'invalid-option' });
    expect(() => postgresStore(pool(), { schema: name })).toThrow('Expected `schema` to be letters');
  });
});

describe('a store', () => {
  const claim = (options: object = {}) => postgresStore(pool(), { schema, ...options }).claim([ask('a', 't')]);

  it('without its tables says what to run, and finds them when they are there', async () => {
    const store = postgresStore(pool(), { schema });
    await expect(store.claim([ask('a', 't')])).rejects.toThrow(/Expected the store's tables in .*, got none: run `migrate\(pool\)`/);
    await expect(store.unit(async () => {})).rejects.toMatchObject({ code: 'store' });
    await migrate(pool(), { schema });
    expect(await store.claim([ask('a', 't')])).toMatchObject([{ state: 'claimed' }]);
  });

  it.each([
    [0, 'run `migrate(pool)`'],
    [99, 'update this package'],
  ])('with tables of version %d says what to do', async (version, advice) => {
    await migrate(pool(), { schema });
    await db.query(`update ${schema}.meta set version = ${version}`);
    await expect(claim()).rejects.toThrow(advice);
  });

  it.each([
    [{}, { partitions: 'daily' }, 'to be daily partitions, got one table: give `partitions` as `migrate` had it'],
    [{ partitions: 'daily' }, {}, 'to be one table, got daily partitions'],
    [{ partitions: 'daily' }, { partitions: 'weekly' }, 'to be weekly partitions, got daily partitions'],
  ])('with tables made with %j refuses %j', async (made, given, text) => {
    await migrate(pool(), { schema, ...(made as object) });
    await expect(claim(given)).rejects.toThrow(text);
    const client = await db.connect();
    await client.query('begin');
    expect(await recordOnce(client as never, { scope: 's', id: 'i', schema }), 'which need not know').toBe('first');
    await client.query('rollback');
    client.release();
  });

  it.each([{}, { partitions: 'daily' as const }])(
    'with a table that a crash would empty refuses, unless that is allowed by name (%j)',
    async (layout) => {
      await migrate(pool(), { schema, ...layout });
      await db.query(`alter table ${schema}.records${'partitions' in layout ? '_1' : ''} set unlogged`);
      await expect(claim(layout)).rejects.toThrow(/to be logged: a crash would empty it, unless `allowDataLoss`/);
      expect(await claim({ ...layout, allowDataLoss: true })).toMatchObject([{ state: 'claimed' }]);
    },
  );

  it('on a server without fsync refuses, unless that is allowed by name', async () => {
    const server = await ownService('postgres', ['fsync=off']);
    const own = poolOf({ connectionString: server.address.url });
    try {
      await migrate(own as unknown as PgPool, { schema });
      const store = (options = {}) => postgresStore(own as unknown as PgPool, { schema, ...options });
      await expect(store().claim([ask('a', 't')])).rejects.toThrow('Expected `fsync` to be on, got off');
      expect(await store({ allowDataLoss: true }).claim([ask('a', 't')])).toMatchObject([{ state: 'claimed' }]);
    } finally {
      await own.end();
      await server.stop();
    }
  });

  it('refuses options that are none', () => {
    expect(() => postgresStore({} as never)).toThrow('Expected `pool` to be a pg Pool, got');
    expect(() => postgresStore(pool(), { lockTimeoutMs: 0 })).toThrow('Expected `lockTimeoutMs`');
    expect(() => postgresStore(pool(), { partitions: 'hourly' as never })).toThrow(
      'Expected `partitions` to be "daily", "weekly" or undefined',
    );
    expect(() => postgresStore(pool(), { allowDataLoss: 'yes' as never })).toThrow('Expected `allowDataLoss` to be true or false');
  });
});

describe('a single client instead of a pool', () => {
  const refusal = /Expected `pool` to be a pg Pool, got a single client: .* Give `new pg\.Pool\(…\)`, or use `recordOnce\(client, …\)`/;

  it('is refused by the types, and when the store is made', () => {
    // @ts-expect-error A client answers nothing when it has connected; a pool gives a client.
    expect(() => postgresStore(new pg.Client())).toThrow(refusal);
  });

  it('is refused if it was taken from a pool', async () => {
    const client = await db.connect();
    try {
      expect(() => postgresStore(client as never)).toThrow(refusal);
    } finally {
      client.release();
    }
  });

  it('is refused if it is anything that runs SQL and no more', () => {
    expect(() => postgresStore({ query: () => {} } as never)).toThrow(refusal);
  });
});

describe('recordOnce', () => {
  const own = { scope: 'billing', id: 'order-1' };
  /** A worker's own transaction. */
  async function transaction<T>(run: (client: pg.PoolClient) => Promise<T>, end = 'commit'): Promise<T> {
    const client = await db.connect();
    try {
      await client.query('begin');
      const result = await run(client);
      await client.query(end);
      return result;
    } catch (error) {
      await client.query('rollback');
      throw error;
    } finally {
      client.release();
    }
  }
  const record = (client: pg.PoolClient) => recordOnce(client as never, { ...own, schema });

  it('is first once, and only if the transaction commits', async () => {
    await migrate(pool(), { schema });
    expect(await transaction(record, 'rollback')).toBe('first');
    expect(await transaction(record)).toBe('first');
    expect(await transaction(record)).toBe('duplicate');
    expect(await transaction((client) => recordOnce(client as never, { ...own, id: 'order-2', schema }))).toBe('first');
  });

  it('is first for one of sixteen at once', async () => {
    await migrate(pool(), { schema });
    const answers = await Promise.all(Array.from({ length: 16 }, () => transaction(record)));
    expect(answers.filter((answer) => answer === 'first')).toHaveLength(1);
  });

  it('shares its records with a receiver of the same scope', async () => {
    await migrate(pool(), { schema });
    const store = postgresStore<pg.PoolClient>(pool(), { schema });
    const receiver = createReceiver({ scope: 'billing', key: attribute('id'), store }, () => {});
    expect(await transaction(record)).toBe('first');
    expect(actions(await receiver.process([delivery('order-1'), delivery('order-2')]))).toEqual(['ack duplicate', 'ack completed']);
    expect(await transaction((client) => recordOnce(client as never, { ...own, id: 'order-2', schema }))).toBe('duplicate');
    await receiver.stop();
  });

  it('is refused outside of a transaction, where the message would be done whatever becomes of the work', async () => {
    await migrate(pool(), { schema });
    const refusal = { code: 'invalid-option', message: expect.stringContaining('Expected `tx` to be a transaction that is open') };
    await expect(recordOnce(pool(), { ...own, schema })).rejects.toMatchObject(refusal);
    expect(await transaction(record)).toBe('first');
    const client = await db.connect();
    try {
      await expect(record(client)).rejects.toMatchObject(refusal);
    } finally {
      client.release();
    }
  });

  it.each([
    { retentionMs: 0 },
    { retentionMs: -1 },
    { retentionMs: Number.NaN },
    { retentionMs: Number.POSITIVE_INFINITY },
    { retentionMs: '1000' },
    { scope: '' },
    { scope: undefined },
  ])('refuses %o, which would remember nothing, or for others', async (given) => {
    await migrate(pool(), { schema });
    const recording = transaction((client) => recordOnce(client as never, { ...own, schema, ...(given as object) }));
    await expect(recording).rejects.toMatchObject({ code: 'invalid-option' });
  });

  it('is neither while a receiver holds a claim, and says when to come back', async () => {
    await migrate(pool(), { schema });
    const store = postgresStore<pg.PoolClient>(pool(), { schema });
    const receiver = createReceiver({ scope: 'billing', key: attribute('id'), store, guarantee: 'leased' }, () =>
      expect(transaction(record)).rejects.toMatchObject({ code: 'busy', retryAfterMs: expect.any(Number) }),
    );
    expect(actions(await receiver.process([delivery('order-1')]))).toEqual(['ack completed']);
    await receiver.stop();
    expect(await transaction(record)).toBe('duplicate');
  });
});
