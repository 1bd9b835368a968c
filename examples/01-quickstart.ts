// START HERE. A transactional receiver on SQLite: the effect and the memory of it commit together.
import { DatabaseSync } from 'node:sqlite';
import { createReceiver, header } from 'idempotent-receiver';
import { sqliteStore } from 'idempotent-receiver/sqlite';
import { z } from 'zod';

const db = new DatabaseSync(':memory:');
db.exec('create table charges (order_id text, cents integer)');

const Order = z.object({ id: z.string(), cents: z.number().int().positive() });
const receiver = createReceiver({ scope: 'billing', key: header('message-id'), schema: Order, store: sqliteStore(db) }, (order, ctx) => {
  ctx.tx.prepare('insert into charges values (?, ?)').run(order.id, order.cents);
});

const message = { id: '1', headers: { 'message-id': 'order-7' }, body: '{ "id": "order-7", "cents": 4200 }' };
for (const delivery of [{ message }, { message }, { message: { ...message, id: '2' } }]) {
  const [verdict] = await receiver.process([delivery]);
  console.log(verdict?.action, verdict?.action === 'ack' ? verdict.outcome : verdict?.reason);
}
console.log(db.prepare('select count(*) as charges from charges').get()?.['charges'], 'charge');
await receiver.stop();
