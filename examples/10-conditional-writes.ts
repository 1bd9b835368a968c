// Writes that the table itself refuses when they come twice, late, or from somebody who was overtaken. For workers that you have; each is one statement.
import { DatabaseSync } from 'node:sqlite';
import { fencedWrite, insertOnce, ReceiverError, steps, updateIf } from 'idempotent-receiver';
import { sqliteStore } from 'idempotent-receiver/sqlite';

const db = new DatabaseSync(':memory:');
db.exec(`create table charges (id text primary key, cents integer);
  create table stock (sku text primary key, pieces integer, version integer); insert into stock values ('A-1', 10, 1);
  create table shipments (order_id text primary key, state text, fence integer)`);

// Once for an id, however often it is asked for.
async function charge(order: { readonly id: string; readonly cents: number }): Promise<string> {
  return (await insertOnce(db, 'charges', { id: order.id, cents: order.cents })) ? 'charged' : 'charged before';
}
console.log(await charge({ id: 'order-7', cents: 4200 }), '/', await charge({ id: 'order-7', cents: 4200 }));

// Read, think, write, without a lock: whoever has read what others have changed since then reads again.
async function take(sku: string, pieces: number): Promise<void> {
  for (;;) {
    const row = db.prepare('select pieces, version from stock where sku = ?').get(sku) as { pieces: number; version: number };
    await new Promise(setImmediate);
    if (await updateIf(db, 'stock', { where: { sku }, version: row.version, set: { pieces: row.pieces - pieces } })) return;
  }
}
await Promise.all([take('A-1', 1), take('A-1', 2), take('A-1', 3)]);
console.log(db.prepare('select pieces from stock').get()?.['pieces'], 'pieces left of 10');

// A worker that stalled: another has taken over, with a greater fence, and the row refuses the first one's.
const orders = steps({ store: sqliteStore(new DatabaseSync(':memory:')), scope: 'ship', leaseMs: 30_000 });
await orders.run('order-7', async ({ fence }) => {
  await fencedWrite(db, 'shipments', { key: { order_id: 'order-7' }, fence: fence + 1, set: { state: 'sent' } }); // the other one
  try {
    await fencedWrite(db, 'shipments', { key: { order_id: 'order-7' }, fence, set: { state: 'packed' } });
  } catch (error) {
    if (!(error instanceof ReceiverError && error.code === 'claim-lost')) throw error;
    console.log('refused:', error.message);
  }
});
console.log(db.prepare('select state from shipments').get()?.['state']);
await orders.stop();
