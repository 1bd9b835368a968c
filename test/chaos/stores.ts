import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { migrate, type PgPool } from '../../adapters/stores/postgres/index.ts';
import { proxyTo } from '../support/proxy.ts';
import { ownService } from '../support/services/index.ts';
import type { StoreName } from './cell.ts';
import { deaths, type Faults, outages } from './faults.ts';
import type { Entry } from './ledger.ts';

/** The store under test, as the harness has it: its faults, and for transactions the ledger inside it. */
export interface StoreSide {
  readonly faults: Faults;
  /** What a cell of this name needs. Answers what its workers connect to. */
  prepare(name: string): Promise<string>;
  /** The ledger in the same database, in the order in which it was written. */
  entries(name: string): Promise<Entry[]>;
  close(): Promise<void>;
}

async function sqlite(): Promise<StoreSide> {
  const folder = mkdtempSync(join(tmpdir(), 'chaos-sqlite-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  const fileOf = (name: string) => join(folder, `${name}.db`);
  let current = '';
  return {
    // There is no server that could be killed: the file's faults are its writers'. One of them takes the lock, and keeps it.
    faults: {
      async lock(forMs) {
        const db = new DatabaseSync(fileOf(current), { timeout: 0 });
        const isLocked = () => {
          try {
            db.exec('begin immediate');
            return true;
          } catch {
            return false;
          }
        };
        const giveUpAt = performance.now() + 3_000;
        while (!isLocked() && performance.now() < giveUpAt) await pause(3);
        await pause(forMs);
        db.close();
      },
    },
    async prepare(name) {
      current = name;
      const db = new DatabaseSync(fileOf(name));
      db.exec('pragma journal_mode = wal; create table ledger (row integer primary key, id text, key text, n integer, worker integer)');
      db.close();
      return fileOf(name);
    },
    async entries(name) {
      const db = new DatabaseSync(fileOf(name), { timeout: 10_000 });
      const rows = db.prepare('select id, key, n, worker from ledger order by row').all();
      db.close();
      return rows as unknown as Entry[];
    },
    close: async () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }),
  };
}

async function redis(): Promise<StoreSide> {
  // What it has answered survives a kill: leased can't promise anything of a store that forgets.
  const server = await ownService('redis', ['--appendonly', 'yes', '--appendfsync', 'always']);
  const proxy = await proxyTo(server.address);
  return {
    faults: { ...outages(server, proxy), ...deaths(server) },
    prepare: async () => `redis://127.0.0.1:${proxy.port}`,
    entries: async () => [],
    async close() {
      await proxy.close();
      await server.stop();
    },
  };
}

async function postgres(): Promise<StoreSide> {
  const server = await ownService('postgres');
  const proxy = await proxyTo(server.address);
  const pool = new pg.Pool({ connectionString: server.address.url, max: 2 });
  pool.on('error', () => {});
  return {
    faults: { ...outages(server, proxy), ...deaths(server) },
    async prepare(name) {
      await migrate(pool as unknown as PgPool<pg.PoolClient>, { schema: name });
      await pool.query(
        `create table ${name}.ledger (row bigint generated always as identity, id text, key text, n integer, worker integer)`,
      );
      return server.address.url.replace(`:${server.address.port}/`, `:${proxy.port}/`);
    },
    entries: async (name) => (await pool.query(`select id, key, n, worker from ${name}.ledger order by row`)).rows as Entry[],
    async close() {
      await pool.end();
      await proxy.close();
      await server.stop();
    },
  };
}

const sides: Readonly<Record<StoreName, () => Promise<StoreSide>>> = { sqlite, redis, postgres };

export const startStore = (name: StoreName): Promise<StoreSide> => sides[name]();
