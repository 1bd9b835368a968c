/**
 * A worker of the naive side: the consumer that most of us have written. Mark the order (`SET order NX PX …`, with a SQLite table in place
 * of Redis), handle it, mark it done, delete the message. It does stop ordinary duplicates. What it can't stand is a process that dies or stalls
 * in between, because the mark and the charge are two writes, and nobody can tell a slow owner from a dead one. How long should a mark last?
 *
 * - Longer than SQS hides the message, so that nobody else charges while the owner is only slow. Then a worker is killed behind the mark, the
 *   message comes again, its mark is still there, so it is taken for a duplicate and deleted. Nobody ever charges it: LOST.
 * - Shorter, so that the order of a dead worker is tried again. Then a worker is stopped behind the mark (garbage collection, a paused VM),
 *   the message comes again, another worker marks and charges it, the first one wakes up and charges too: DOUBLED.
 *
 * There is no right value. The first one is used on the standard queue here, the second one on the FIFO queue.
 */

import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { equipment, sqsClient, tell } from './client.ts';
import { charge } from './ledger.ts';
import { checkForFraud, type Order } from './order.ts';
import { markMs, visibilityMs } from './settings.ts';

const { endpoint, queueUrls, file } = equipment();
const client = sqsClient(endpoint);

const db = new DatabaseSync(file, { timeout: 10_000 });
db.exec('pragma synchronous = normal; create table if not exists marks (order_id text primary key, until integer not null)');
const setIfAbsent = db.prepare(`
  insert into marks values (:id, :until) on conflict do update set until = excluded.until where marks.until < :now`);
const setDone = db.prepare('update marks set until = 9e15 where order_id = ?');

function mark({ id }: Order, forMs: number): boolean {
  const now = Date.now();
  return setIfAbsent.run({ id, now, until: now + forMs }).changes === 1;
}

function chargeInTransaction(order: Order): void {
  db.exec('begin immediate');
  charge(db, order);
  db.exec('commit');
}

async function handle(order: Order, markForMs: number): Promise<void> {
  if (!mark(order, markForMs)) return tell('duplicate');
  tell('begun');
  await checkForFraud(order);
  chargeInTransaction(order);
  setDone.run(order.id);
}

let ended = false;
process.once('SIGTERM', () => (ended = true));
process.once('disconnect', () => process.exit());

async function poll(QueueUrl: string): Promise<void> {
  const markForMs = QueueUrl.endsWith('.fifo') ? markMs.fifo : markMs.standard;
  while (!ended) {
    try {
      const { Messages = [] } = await client.receiveMessage({
        QueueUrl,
        MaxNumberOfMessages: 10,
        WaitTimeSeconds: 1,
        VisibilityTimeout: visibilityMs / 1_000,
      });
      for (const _ of Messages) tell('delivered');
      for (const { Body, ReceiptHandle } of Messages) {
        await handle(JSON.parse(Body!), markForMs);
        await client.deleteMessage({ QueueUrl, ReceiptHandle });
      }
    } catch {
      // A request that timed out while this process was stopped. What was not deleted comes again.
      await sleep(100);
    }
  }
}

await Promise.all(queueUrls.map(poll));
process.disconnect?.();
