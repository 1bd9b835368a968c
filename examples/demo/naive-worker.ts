/**
 * A worker of the naive side: the consumer that most of us have written. Mark the order (`SET order NX PX 1000`, with a SQLite table in
 * place of Redis), handle it, mark it done, delete the message. It does stop ordinary duplicates. What it can't stand is a process that dies or
 * stalls in between, because the mark and the charge are two writes:
 *
 * - Killed behind the mark, before the charge: the message comes again, its mark is still there, so it is taken for a duplicate and
 *   deleted. Nobody ever charges it: LOST.
 * - Stopped behind the mark (garbage collection, a laptop lid, a full disk): the mark expires, the message comes again, another worker
 *   marks and charges it. Then the first one wakes up and charges too: DOUBLED.
 *
 * A longer mark loses more, a shorter one doubles more, and none at all brings no order. There is no right value.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DatabaseSync } from 'node:sqlite';
import { equipment, sqsClient, tell } from './client.ts';
import { charge } from './ledger.ts';
import { checkForFraud, type Order } from './order.ts';
import { markMs, visibilityMs } from './settings.ts';

const { endpoint, queueUrls, file } = equipment();
const client = sqsClient(endpoint);

const db = new DatabaseSync(file, { timeout: 10_000 });
db.exec('create table if not exists marks (order_id text primary key, until integer not null)');
const setIfAbsent = db.prepare(`
  insert into marks values (:id, :until) on conflict do update set until = excluded.until where marks.until < :now`);
const setDone = db.prepare("update marks set until = 9e15 where order_id = ?");

function mark({ id }: Order): boolean {
  const now = Date.now();
  return setIfAbsent.run({ id, now, until: now + markMs }).changes === 1;
}

function chargeInTransaction(order: Order): void {
  db.exec('begin immediate');
  charge(db, order);
  db.exec('commit');
}

async function handle(order: Order): Promise<void> {
  if (!mark(order)) return tell('duplicate');
  tell('begun');
  await checkForFraud(order);
  chargeInTransaction(order);
  setDone.run(order.id);
}

let ended = false;
process.once('SIGTERM', () => (ended = true));
process.once('disconnect', () => process.exit());

async function poll(QueueUrl: string): Promise<void> {
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
        await handle(JSON.parse(Body!));
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
