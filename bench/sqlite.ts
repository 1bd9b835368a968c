/**
 * What deduplication costs on SQLite, at full durability: the same work (parse an order, charge an account: two statements) done in five
 * ways, each in a file of its own. Work that is not measured against anything is in none of them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { attribute, createReceiver, type Delivery, type Receiver } from 'idempotent-receiver';
import { sqliteStore } from 'idempotent-receiver/sqlite';
import { type Bench, type Contender, sideBySide } from './bench.ts';

const batchSize = 500;
const accounts = 1_000;

interface Order {
  readonly id: string;
  readonly account: number;
  readonly amount: number;
}

function deliveries(batch: number): Delivery[] {
  return Array.from({ length: batchSize }, (_, i) => {
    const id = `order-${batch}-${i}`;
    const order: Order = { id, account: (batch * 7 + i * 13) % accounts, amount: 1 + (i % 100) };
    const body = JSON.stringify({
      ...order,
      currency: 'EUR',
      lines: [
        { sku: 'A-1', quantity: 2 },
        { sku: 'B-2', quantity: 1 },
      ],
    });
    return { message: { id, body, headers: { 'message-id': id } } };
  });
}

function openFile(folder: string, name: string): DatabaseSync {
  const db = new DatabaseSync(join(folder, `${name}.db`));
  db.exec(`pragma journal_mode = wal; pragma synchronous = full;
    create table accounts (id integer primary key, balance integer not null) strict;
    create table charges (id text not null, account integer not null, amount integer not null) strict;`);
  const insert = db.prepare('insert into accounts values (?, 0)');
  for (let id = 0; id < accounts; id++) insert.run(id);
  return db;
}

/** The work itself, the same in every case. */
function charger(db: DatabaseSync): (order: Order) => void {
  const add = db.prepare('insert into charges values (?, ?, ?)');
  const move = db.prepare('update accounts set balance = balance + ? where id = ?');
  return ({ id, account, amount }) => {
    add.run(id, account, amount);
    move.run(amount, account);
  };
}

/** A consumer without deduplication; a savepoint a message, so that a failing one undoes only itself. */
function withoutDedup(folder: string, name: string, groupSize: number, at: number): Contender {
  const db = openFile(folder, `without-${groupSize}`);
  const charge = charger(db);
  return {
    name,
    async run(batch) {
      const all = deliveries(batch).slice(0, at);
      for (const [i, { message }] of all.entries()) {
        if (i % groupSize === 0) db.exec('begin immediate');
        await inSavepoint(db, async () => charge(JSON.parse(message.body as string)));
        if (i % groupSize === groupSize - 1) db.exec('commit');
      }
      return all.length;
    },
    close: () => db.close(),
  };
}

/** The least that dedup by hand can do: the id as it came, no digest, no fingerprint, no attempts, no results. */
function byHand(folder: string): Contender {
  const db = openFile(folder, 'by-hand');
  db.exec('create table seen (id text primary key) strict, without rowid');
  const charge = charger(db);
  const record = db.prepare('insert or ignore into seen values (?)');
  return {
    name: `dedup by hand, one transaction per ${batchSize}`,
    async run(batch) {
      const all = deliveries(batch);
      db.exec('begin immediate');
      for (const { message } of all) {
        await inSavepoint(db, async () => {
          if (record.run(message.headers['message-id']!).changes) charge(JSON.parse(message.body as string));
        });
      }
      db.exec('commit');
      return all.length;
    },
    close: () => db.close(),
  };
}

async function inSavepoint(db: DatabaseSync, run: () => Promise<void>): Promise<void> {
  db.exec('savepoint message');
  try {
    await run();
  } catch (error) {
    db.exec('rollback to message');
    throw error;
  } finally {
    db.exec('release message');
  }
}

/** Runs batches of `at` messages through a receiver, and makes sure that each was handled. */
function throughReceiver(name: string, receiver: Receiver, at: number, close: () => void): Contender {
  return {
    name,
    close,
    async run(batch) {
      const all = deliveries(batch).slice(0, at);
      const verdicts = await receiver.process(all);
      const bad = verdicts.find((verdict) => verdict.action !== 'ack' || verdict.outcome !== 'completed');
      if (bad) throw new Error(`Expected every message to be handled, got ${JSON.stringify(bad)}`);
      return all.length;
    },
  };
}

const common = { scope: 'bench', key: attribute('message-id') };

function transactional(folder: string, name: string, groupSize: number, at: number): Contender {
  const db = openFile(folder, `transactional-${groupSize}`);
  const charge = charger(db);
  const receiver = createReceiver({ ...common, store: sqliteStore(db), groupSize }, (order: Order) => charge(order));
  return throughReceiver(name, receiver, at, () => db.close());
}

/** Leased: the effects of each message commit by themselves, on a connection of their own. */
function leased(folder: string, name: string): Contender {
  const db = openFile(folder, 'leased');
  const own = new DatabaseSync(join(folder, 'leased.db'));
  own.exec('pragma synchronous = full; pragma busy_timeout = 5000');
  const charge = charger(own);
  const receiver = createReceiver({ ...common, store: sqliteStore(db), guarantee: 'leased', concurrency: batchSize }, (order: Order) => {
    own.exec('begin immediate');
    charge(order);
    own.exec('commit');
  });
  return throughReceiver(name, receiver, batchSize, () => {
    own.close();
    db.close();
  });
}

export const bench: Bench = async ({ seconds }) => {
  const folder = mkdtempSync(join(tmpdir(), 'idempotent-receiver-bench-'));
  try {
    const plain = `no dedup, one transaction per ${batchSize}`;
    const plainSingle = 'no dedup, a transaction per message';
    const group = `transactional, group commit of ${batchSize}`;
    const single = 'transactional, a transaction per message';
    const cases = await sideBySide(
      [
        withoutDedup(folder, plain, batchSize, batchSize),
        withoutDedup(folder, plainSingle, 1, 50),
        byHand(folder),
        transactional(folder, group, batchSize, batchSize),
        transactional(folder, single, 1, 50),
        leased(folder, `leased, batches of ${batchSize}`),
      ],
      { seconds },
    );
    const perSecond = (name: string) => cases.find((each) => each.name === name)!.perSecond;
    const ratio = (name: string, to: string) => Number((perSecond(name) / perSecond(to)).toFixed(3));
    return {
      cases,
      aims: [
        {
          name: 'group commit against the same effects without dedup, committed in the same groups',
          measured: ratio(group, plain),
          atLeast: 0.85,
        },
        {
          name: 'group commit against the same effects without dedup, committed one by one',
          measured: ratio(group, plainSingle),
          atLeast: 0.85,
        },
      ],
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
