import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { migrate, type PgPool, postgresOutbox } from '../../adapters/stores/postgres/index.ts';
import type { Due } from '../../src/index.ts';
import { virtualWorld } from '../../src/testing/virtual-world.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
import { proxyTo } from '../support/proxy.ts';
import { service } from '../support/services/index.ts';
import { unique } from '../support/unique.ts';
import { type Box, message, outboxContract, textOf } from './outbox-contract.ts';

let db: pg.Pool;
const schemas: string[] = [];
beforeAll(async () => {
  db = poolOf({ connectionString: (await service('postgres')).url, max: 20 });
});
afterAll(async () => {
  for (const schema of schemas) await db.query(`drop schema ${schema} cascade`);
  await db.end();
});

const pool = () => db as unknown as PgPool<pg.PoolClient>;

async function openBox(more: { notify?: boolean } = {}): Promise<Box & { schema: string }> {
  const schema = unique('outbox');
  await migrate(pool(), { schema });
  schemas.push(schema);
  const options = { destinations: ['orders', 'mails'], schema, ...more } as const;
  const outbox = postgresOutbox(pool(), options);
  return {
    schema,
    outbox,
    another: () => postgresOutbox(pool(), options),
    async publishing(work) {
      const client = await db.connect();
      try {
        await client.query('begin');
        await work(async (destination, given) => outbox.publish(client, destination, given));
        await client.query('commit');
      } catch (error) {
        await client.query('rollback');
        throw error;
      } finally {
        client.release();
      }
    },
    async careless() {
      const client = await db.connect();
      try {
        await outbox.publish(client, 'orders', message('careless'));
      } finally {
        client.release();
      }
    },
    advance: (ms) => db.query(`update ${schema}.outbox set retry_at = retry_at - interval '${ms} ms'`).then(() => {}),
  };
}

outboxContract('PostgreSQL', () => openBox());
outboxContract('PostgreSQL with NOTIFY', () => openBox({ notify: true }));

describe('a relay that takes messages of which another has just counted that it will send them (PostgreSQL)', () => {
  it.each([
    ['sent', []],
    ['left', ['1', '2']],
  ] as const)('and answers `%s`: nothing is sent behind its back, and nobody has one failure more', async (as, expected) => {
    const box = await openBox();
    await box.publishing((write) => write('orders', [message('1', 'k'), message('2', 'k')]));
    let others = 1;
    const watched: PgPool = {
      query: (text, values) => pool().query(text, values),
      async connect() {
        const client = await pool().connect();
        return {
          async query(text, values) {
            const answer = await client.query(text, values as unknown[]);
            if (text === 'commit' && others-- > 0) await box.outbox.take('orders', 10, async (due) => due.map(() => ({ as })));
            return answer;
          },
          release: (error) => client.release(error),
        };
      },
    };
    const got: string[] = [];
    const outbox = postgresOutbox(watched, { destinations: ['orders', 'mails'], schema: box.schema });
    await outbox.take('orders', 10, async (due) => (got.push(...due.map(textOf)), due.map(() => ({ as: 'sent' }))));
    expect(got).toEqual(expected);
    await box.publishing((write) => write('orders', message('3', 'k')));
    const rest: string[] = [];
    const look = async (due: readonly Due[]) => (
      rest.push(...due.map((each) => `${textOf(each)}: ${each.failures}`)), due.map(() => ({ as: 'sent' }) as const)
    );
    await box.another().take('orders', 10, look);
    expect(rest).toEqual(['3: 0']);
  });
});

describe('a relay whose connection falls silent (PostgreSQL, behind a proxy)', () => {
  it.each(['for update skip locked', 'row_number() over', 'failures = failures +', 'for update', 'delete from', 'listen "'])(
    'at `%s`: the call fails when that has lasted for two leases, and the next one goes on',
    async (when) => {
      const box = await openBox();
      await box.publishing((write) => write('orders', message('1')));
      const address = await service('postgres');
      const proxy = await proxyTo(address);
      const behind = poolOf({ ...address, host: proxy.host, port: proxy.port });
      try {
        const world = virtualWorld();
        const outbox = postgresOutbox(behind as unknown as PgPool<pg.PoolClient>, {
          destinations: ['orders', 'mails'],
          schema: box.schema,
          notify: true,
          leaseMs: 1_000,
          world,
        });
        const send = async (due: readonly Due[]) => due.map(() => ({ as: 'sent' }) as const);
        await outbox.take('mails', 1, send);
        proxy.next({
          fault: 'hang-reply',
          when: (bytes) => bytes.includes(when) && (when !== 'for update' || !bytes.includes('skip locked')),
        });
        const call = when === 'listen "' ? outbox.listen!(() => {}, new AbortController().signal) : outbox.take('orders', 10, send);
        const failed = expect(call).rejects.toThrow(/2000 ms|terminated|closed/);
        while (proxy.injected['hang-reply'] === 0) await new Promise((resolve) => setImmediate(resolve));
        await world.advance(1_999);
        expect(proxy.injected['hang-reply']).toBe(1);
        await world.advance(1);
        await failed;
        // The server may not know yet that the connection is gone.
        while (when !== 'listen "' && (await outbox.take('orders', 10, send)) === 0);
        expect(world.timers).toBe(0);
      } finally {
        await behind.end();
        await proxy.close();
      }
    },
  );
});
