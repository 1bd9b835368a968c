import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import Database from 'better-sqlite3';
import { afterAll } from 'vitest';
import { type SqliteDatabase, sqliteOutbox } from '../../adapters/stores/sqlite/index.ts';
import { type Box, message, outboxContract } from './outbox-contract.ts';

const folder = mkdtempSync(join(tmpdir(), 'idempotent-receiver-outbox-'));
const opened = new Set<{ close(): void }>();
afterAll(() => {
  for (const db of opened) db.close();
  rmSync(folder, { recursive: true, force: true });
});
let files = 0;

async function openBox(connect: (file: string) => SqliteDatabase & { close(): void }): Promise<Box> {
  const file = join(folder, `${files++}.db`);
  const open = () => {
    const db = connect(file);
    opened.add(db);
    return db;
  };
  let now = 1_000_000;
  const options = { destinations: ['orders', 'mails'], now: () => now } as const;
  const outbox = sqliteOutbox(open(), options);
  const mine = open();
  mine.exec('pragma busy_timeout = 5000');
  return {
    outbox,
    another: () => sqliteOutbox(open(), options),
    async publishing(work) {
      mine.exec('begin immediate');
      try {
        await work(async (destination, given) => outbox.publish(mine, destination, given));
        mine.exec('commit');
      } catch (error) {
        mine.exec('rollback');
        throw error;
      }
    },
    careless: () => void outbox.publish(mine, 'orders', message('careless')),
    advance: (ms) => void (now += ms),
  };
}

outboxContract('node:sqlite', () => openBox((file) => new DatabaseSync(file)));
outboxContract('better-sqlite3', () => openBox((file) => new Database(file)));
