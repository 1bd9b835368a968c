// Charge and announce, together or not at all: the announcement is written in the handler's transaction, and a relay sends it afterwards.
import { DatabaseSync } from 'node:sqlite';
import { createReceiver, type Destination, header, relay } from 'idempotent-receiver';
import { sqliteOutbox, sqliteStore } from 'idempotent-receiver/sqlite';

const db = new DatabaseSync(':memory:');
db.exec('create table charges (order_id text)');
const outbox = sqliteOutbox(db, { destinations: ['charged'] });
const receiver = createReceiver(
  { scope: 'billing', key: header('message-id'), store: sqliteStore(db), outbox },
  async (order: { id: string }, ctx) => {
    ctx.tx.prepare('insert into charges values (?)').run(order.id);
    await ctx.publish('charged', { body: { order: order.id }, orderingKey: order.id });
  },
);

const message = { id: '1', headers: { 'message-id': 'order-7' }, body: '{ "id": "order-7" }' };
await receiver.process([{ message }]);
await receiver.process([{ message }]);

// For Kafka: kafkaDestination(new Kafka(…), 'charged'); for SQS: sqsDestination(client, queueUrl).
const charged: Destination = {
  async send(messages) {
    for (const { id, body } of messages) console.log(id, body && new TextDecoder().decode(body));
    return messages.map(() => ({ state: 'sent' }));
  },
};
await relay({ outbox, to: { charged } }).drain();
console.log(db.prepare('select count(*) as charges from charges').get());
await receiver.stop();
