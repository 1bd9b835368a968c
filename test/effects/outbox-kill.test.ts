import { type ChildProcess, spawn } from 'node:child_process';
import { once as happened } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { memoryStore } from '../../adapters/stores/memory.ts';
import { migrate, type PgPool, postgresOutbox } from '../../adapters/stores/postgres/index.ts';
import { sqliteOutbox } from '../../adapters/stores/sqlite/index.ts';
import { sharedFailures } from '../../src/effects/outbox.ts';
import { attribute, createReceiver, type OutboxAdmin, type OutboxQueue, relay } from '../../src/index.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
import { service } from '../support/services/index.ts';
import { unique } from '../support/unique.ts';
import type { ChildOptions } from './outbox-child.ts';
import { fileDestination } from './outbox-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'idempotent-receiver-outbox-kill-'));
const children = new Set<ChildProcess>();
const schemas: string[] = [];
const opened: DatabaseSync[] = [];
let db: pg.Pool;
let url: string;
beforeAll(async () => {
  ({ url } = await service('postgres'));
  db = poolOf({ connectionString: url });
});
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  for (const each of opened) each.close();
  for (const schema of schemas) await db.query(`drop schema ${schema} cascade`);
  await db.end();
  rmSync(folder, { recursive: true, force: true });
});

const script = fileURLToPath(new URL('outbox-child.ts', import.meta.url));

function start(options: ChildOptions): { child: ChildProcess; ended: Promise<'SIGKILL' | number> } {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, JSON.stringify(options)], { stdio: 'inherit' });
  children.add(child);
  const ended = happened(child, 'exit').then(([code, signal]) => (children.delete(child), signal ?? code));
  return { child, ended };
}

/** A database with an outbox and a table of effects, and a file that stands for the broker. */
interface Site {
  readonly options: Pick<ChildOptions, 'database' | 'ledger'>;
  effects(): Promise<number[]>;
  /** Publishes the numbers from 0 in this process. */
  publish(count: number, keys: number): Promise<void>;
  /** Sends in this process all that there is. */
  drain(): Promise<void>;
  readonly admin: OutboxAdmin;
}

let sites = 0;

async function site(kind: 'SQLite' | 'PostgreSQL'): Promise<Site> {
  const ledger = join(folder, `ledger-${sites++}`);
  if (kind === 'SQLite') {
    const file = join(folder, `${sites}.db`);
    const own = new DatabaseSync(file);
    opened.push(own);
    const outbox = sqliteOutbox(own, { destinations: ['orders'] });
    own.exec('create table effects (n integer)');
    return {
      options: { database: { file }, ledger },
      effects: async () =>
        own
          .prepare('select n from effects order by n')
          .all()
          .map(({ n }) => n as number),
      async publish(count, keys) {
        own.exec('begin immediate');
        for (const n of numbers(count)) outbox.publish(own, 'orders', numbered(n, keys));
        own.exec('commit');
      },
      drain: () => drain(outbox, ledger),
      admin: outbox,
    };
  }
  const schema = unique('kill');
  schemas.push(schema);
  await migrate(db as unknown as PgPool, { schema });
  await db.query(`create table ${schema}.effects (n integer)`);
  const outbox = postgresOutbox(db as unknown as PgPool, { destinations: ['orders'], schema });
  return {
    options: { database: { url, schema }, ledger },
    effects: async () => (await db.query(`select n from ${schema}.effects order by n`)).rows.map(({ n }) => n),
    async publish(count, keys) {
      const client = await db.connect();
      await client.query('begin');
      for (const n of numbers(count)) await outbox.publish(client, 'orders', numbered(n, keys));
      await client.query('commit');
      client.release();
    },
    drain: () => drain(outbox, ledger),
    admin: outbox,
  };
}

const numbered = (n: number, keys: number) => ({ body: String(n), orderingKey: `k${n % keys}` });

/** What a dead relay on SQLite has taken is due when its lease has ended. */
async function drain(outbox: OutboxQueue<'orders'> & OutboxAdmin, ledger: string): Promise<void> {
  const to = { orders: fileDestination(ledger) };
  for (const end = performance.now() + 20_000; performance.now() < end; await pause(50)) {
    await relay({ outbox, to }).drain();
    if ((await outbox.stats()).length === 0) return;
  }
  throw new Error('Expected the outbox to be empty after 20 s');
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

interface Sent {
  readonly orderingKey: string;
  readonly id: string;
  readonly body: number;
}

const sentTo = (ledger: string): Sent[] =>
  existsSync(ledger)
    ? readFileSync(ledger, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split(' '))
        .map(([orderingKey, id, body]) => ({ orderingKey: orderingKey!, id: id!, body: Number(body) }))
    : [];

/** What a receiver downstream makes of it: each message once, by its id. */
async function received(sent: readonly Sent[]): Promise<number[]> {
  const effects: number[] = [];
  const receiver = createReceiver(
    { scope: 'downstream', key: attribute('message-id'), store: memoryStore() },
    (body: number) => void effects.push(body),
  );
  for (const { id, body } of sent) await receiver.process([{ message: { id, body: String(body), headers: { 'message-id': id } } }]);
  await receiver.stop();
  return effects;
}

/** Every message at least once, each time with the same id, no two with one; and once, in order, for whoever drops the copies. */
async function check(sent: readonly Sent[], expected: readonly number[]): Promise<{ copies: number }> {
  const ids = new Map<number, string>();
  for (const { body, id } of sent) {
    expect(ids.get(body) ?? id).toBe(id);
    ids.set(body, id);
  }
  expect(new Set(ids.values()).size).toBe(ids.size);
  const effects = await received(sent);
  expect(effects.toSorted((a, b) => a - b)).toEqual(expected);
  const keyOf = new Map(sent.map(({ body, orderingKey }) => [body, orderingKey]));
  for (const own of Map.groupBy(effects, (body) => keyOf.get(body)).values()) expect(own).toEqual(own.toSorted((a, b) => a - b));
  return { copies: sent.length - effects.length };
}

describe.each(['SQLite', 'PostgreSQL'] as const)('on %s', { timeout: 120_000 }, (kind) => {
  it('a relay that is killed at each border sends again what it may not have sent, with the same ids, and loses nothing', async () => {
    const borders: [at: string, time: number, copies: 'some' | 'none' | 'any'][] = [
      ['after begin', 2, 'none'],
      ['before count', 1, 'none'],
      ['after count', 1, 'none'],
      ['before send', 2, 'none'],
      ['half sent', 2, 'some'],
      ['after send', 2, 'some'],
      ['before delete', 3, 'some'],
      ['after delete', 3, 'some'],
      // SQLite commits once to take, and once to remove.
      ['before commit', kind === 'SQLite' ? 4 : 2, 'some'],
      // On PostgreSQL another take may be on its way.
      ['after commit', kind === 'SQLite' ? 4 : 2, kind === 'SQLite' ? 'none' : 'any'],
    ];
    if (kind === 'PostgreSQL') borders.push(['before commit of the count', 2, 'any'], ['after commit of the count', 2, 'any']);
    await Promise.all(
      borders.map(async ([at, time, copies]) => {
        const { options, publish, drain } = await site(kind);
        await publish(40, 3);
        expect(await start({ ...options, does: 'relay', leaseMs: 3_000, dies: { at, time } }).ended, at).toBe('SIGKILL');
        await drain();
        const found = await check(sentTo(options.ledger), numbers(40));
        if (copies !== 'any') expect(found.copies > 0 ? 'some' : 'none', `copies after ${at}: ${found.copies}`).toBe(copies);
      }),
    );
  });

  it('a publisher that is killed at each border has published exactly what it has committed', async () => {
    const borders: [at: string, time: number, committed: number][] = [
      ['after begin', 3, 2],
      ['before insert', 3, 2],
      ['after insert', 3, 2],
      ['before commit', 3, 2],
      ['after commit', 3, 3],
    ];
    await Promise.all(
      borders.map(async ([at, time, committed]) => {
        const { options, effects, drain } = await site(kind);
        expect(await start({ ...options, does: 'publish', messages: { from: 0, to: 10, keys: 2 }, dies: { at, time } }).ended, at).toBe(
          'SIGKILL',
        );
        expect(await effects(), at).toEqual(numbers(committed));
        await drain();
        expect((await check(sentTo(options.ledger), numbers(committed))).copies).toBe(0);
      }),
    );
  });

  it('a message that kills whoever sends it is parked, and only that one; all others go through in order', async () => {
    const { options, publish, admin } = await site(kind);
    await publish(40, 3);
    const maxAttempts = 3;
    const waiting = async () => (await admin.stats()).reduce((sum, each) => sum + each.waiting, 0);
    let deaths = 0;
    // Who is slower than its lease has failed too, without having died. On SQLite the dead hold theirs until it is over.
    const leaseMs = kind === 'SQLite' ? 500 : 5_000;
    for (let starts = 0; (await waiting()) > 0 && starts < 100; starts++) {
      const { ended } = start({ ...options, does: 'relay', leaseMs, poison: '17', maxAttempts });
      if ((await ended) === 'SIGKILL') deaths++;
    }
    expect((await admin.listParked({ limit: 10 })).map(({ body, reason }) => [String(Buffer.from(body!)), reason])).toEqual([
      ['17', `Tried ${maxAttempts + sharedFailures} times; who tried it died, or lost the database`],
    ]);
    expect(deaths).toBeGreaterThanOrEqual(maxAttempts + sharedFailures);
    // Once it dies among others in a process that has been sending for a while, which is not counted.
    expect(deaths).toBeLessThanOrEqual(maxAttempts + sharedFailures + 1);
    await check(
      sentTo(options.ledger),
      numbers(40).filter((n) => n !== 17),
    );
  });

  it('several relays that are killed, and stopped past their leases, while others publish: nothing is lost, and each ordering key keeps its order', async () => {
    const { options, drain } = await site(kind);
    const [count, keys, relays] = [200, 12, 3];
    const seed = Date.now() % 1_000_000;
    const random = randomOf(seed);
    const publisher = start({ ...options, does: 'publish', messages: { from: 0, to: count, keys } });
    const relayOptions: ChildOptions = { ...options, does: 'relay', forEver: true, leaseMs: 1_000, batchSize: 10, sendMs: 3 };
    let done = false;
    const deaths = { killed: 0, stopped: 0 };
    const crew = numbers(relays).map(async () => {
      while (!done) {
        const { child, ended } = start(relayOptions);
        // From its first message on, or it would be dead before it is alive on a busy machine.
        for (const before = sentTo(options.ledger).length; sentTo(options.ledger).length === before && !done; ) await pause(20);
        await pause(random() * 300);
        if (random() < 0.3) {
          child.kill('SIGSTOP');
          await pause(1_300);
          child.kill('SIGCONT');
          deaths.stopped++;
          await pause(100);
        }
        child.kill('SIGKILL');
        deaths.killed++;
        await ended;
      }
    });
    const distinct = () => new Set(sentTo(options.ledger).map(({ body }) => body)).size;
    const end = performance.now() + 60_000;
    while (distinct() < count && performance.now() < end) await pause(200);
    done = true;
    await Promise.all([...crew, publisher.ended]);
    await drain();
    const { copies } = await check(sentTo(options.ledger), numbers(count)).catch((error: unknown) => {
      throw new Error(`seed ${seed}: ${error}`, { cause: error });
    });
    expect(copies, 'a run without copies has not been disturbed').toBeGreaterThan(0);
    expect(deaths.killed).toBeGreaterThan(3);
    expect(deaths.stopped).toBeGreaterThan(0);
  });
});

/** Mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
