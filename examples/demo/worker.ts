/**
 * A worker of the receiver's side. This is all that a consumer needs; the rest of this folder is there to torment it.
 *
 * The charge and the record that the order has been handled are written in one transaction, so whenever this process dies, either both are in
 * the file or none is. What is not, comes again; what is, is told to be a duplicate when it comes again.
 */
import { DatabaseSync } from 'node:sqlite';
import { body, createReceiver } from 'idempotent-receiver';
import { sqliteStore } from 'idempotent-receiver/sqlite';
import { sqsPoller } from 'idempotent-receiver/sqs';
import { equipment, sqsClient, tell } from './client.ts';
import { charge } from './ledger.ts';
import { checkForFraud, type Order } from './order.ts';
import { leaseMs, storeTimeoutMs, visibilityMs } from './settings.ts';

const { endpoint, queueUrls, file } = equipment();
const client = sqsClient(endpoint);

const receiver = createReceiver(
  {
    scope: 'billing',
    // Not SQS's own MessageId: an order that the producer sends again gets another one.
    key: body((order: Order) => order.id),
    // Survives kills, which is what happens here. The default, `full`, survives a power cut too, and waits for the disk.
    store: sqliteStore(new DatabaseSync(file), { durability: 'normal' }),
    leaseMs,
    storeTimeoutMs,
    on: { received: () => tell('delivered'), duplicate: () => tell('duplicate') },
  },
  async (order: Order, { tx }) => {
    tell('begun');
    await checkForFraud(order);
    charge(tx, order);
  },
);

const end = new AbortController();
process.once('SIGTERM', () => end.abort());
process.once('disconnect', () => process.exit());

const pollers = queueUrls.map((queueUrl) =>
  sqsPoller({
    client,
    queueUrl,
    receiver,
    visibilityMs,
    waitMs: 1_000,
    stopReceiver: false,
    // A worker that has been stopped for seconds finds its requests timed out. The poller goes on by itself.
    onError: () => {},
  }),
);
await Promise.all(pollers.map((poller) => poller.run(end.signal)));
await receiver.stop();
process.disconnect?.();
