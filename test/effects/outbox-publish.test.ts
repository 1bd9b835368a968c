import { DatabaseSync } from 'node:sqlite';
import { sqliteOutbox, sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import { createReceiver } from '../../src/index.ts';
import { common, destinations, type Place, publishContract } from './outbox-publish-contract.ts';

async function sqlitePlace(): Promise<Place> {
  const db = new DatabaseSync(':memory:');
  db.exec('create table effects (text text)');
  const outbox = sqliteOutbox(db, { destinations });
  const store = sqliteStore(db);
  return {
    outbox,
    receiver: (handler, options) => createReceiver({ ...common, store, outbox, ...options }, handler),
    effect: (tx: DatabaseSync, text) => void tx.prepare('insert into effects values (?)').run(text),
    effects: async () =>
      db
        .prepare('select text from effects order by text')
        .all()
        .map(({ text }) => text as string),
    idsInside: async (tx: DatabaseSync) =>
      tx
        .prepare('select id from idempotent_outbox')
        .all()
        .map(({ id }) => id as string),
  };
}

publishContract('SQLite', sqlitePlace);
