// An SQS FIFO queue, with the AWS SDK over HTTP: a late retry of the producer, a failing handler, poison. The queue is served in this process.

import { DatabaseSync } from 'node:sqlite';
import { CreateQueueCommand, SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { buildApp } from 'fauxqs';
import { attribute, createReceiver, TerminalError } from 'idempotent-receiver';
import { sqliteStore } from 'idempotent-receiver/sqlite';
import { sqsPoller, sqsSender } from 'idempotent-receiver/sqs';

interface Order {
  readonly id: string;
  readonly account: string;
  readonly cents: number;
}

const server = buildApp({ logger: false });
const endpoint = await server.listen({ host: '127.0.0.1', port: 0 });
const client = new SQSClient({ endpoint, region: 'eu-west-1', credentials: { accessKeyId: 'x', secretAccessKey: 'x' } });
const queueUrl = await makeQueue('orders.fifo');
const deadUrl = await makeQueue('orders-dead.fifo');

const db = new DatabaseSync(':memory:');
db.exec('create table charges (order_id text, cents integer)');

let copies = 0;
const receiver = createReceiver(
  {
    scope: 'billing',
    key: attribute('idempotency-key'),
    store: sqliteStore(db),
    leaseMs: 5_000,
    backoff: { firstMs: 0 },
    on: {
      duplicate: ({ message }) => {
        copies++;
        console.log(`a copy of ${message.headers['idempotency-key']} was stopped`);
      },
      parked: ({ message, detail }) => console.log(`${message.headers['idempotency-key']} was put aside: ${detail}`),
      released: ({ message, error }) => console.log(`${message.headers['idempotency-key']} will be tried again: ${error}`),
    },
  },
  (order: Order, ctx) => {
    if (order.cents <= 0) throw new TerminalError('Nothing to charge');
    ctx.tx.prepare('insert into charges values (?, ?)').run(order.id, order.cents);
    if (order.id === 'order-2' && ctx.attempt === 1) throw new Error('The network was down');
  },
);

const sender = sqsSender<Order>({ client, queueUrl, key: (order) => order.id, group: (order) => order.account });
await sender.send([
  { id: 'order-1', account: 'ann', cents: 1_000 },
  { id: 'order-2', account: 'bob', cents: 2_000 },
  { id: 'order-3', account: 'ann', cents: 0 },
]);

// The producer sends order-1 again. After five minutes SQS has forgotten the first one's deduplication id; another id stands for that here.
const late = { id: 'order-1', account: 'ann', cents: 1_000 };
await client.send(
  new SendMessageCommand({
    QueueUrl: queueUrl,
    MessageBody: JSON.stringify(late),
    MessageGroupId: late.account,
    MessageDeduplicationId: 'order-1-six-minutes-later',
    MessageAttributes: { 'idempotency-key': { DataType: 'String', StringValue: late.id } },
  }),
);

const poller = sqsPoller({ client, queueUrl, receiver, deadLetter: { queueUrl: deadUrl }, waitMs: 1_000 });
const running = poller.run();
while (!copies || db.prepare('select count(*) as n from charges').get()?.['n'] !== 2)
  await new Promise((resolve) => setTimeout(resolve, 50));
await poller.stop();
await running;

for (const { order_id, cents } of db.prepare('select * from charges order by order_id').all()) console.log(order_id, cents);
client.destroy();
await server.close();

async function makeQueue(QueueName: string): Promise<string> {
  const { QueueUrl } = await client.send(new CreateQueueCommand({ QueueName, Attributes: { FifoQueue: 'true' } }));
  return QueueUrl ?? '';
}
