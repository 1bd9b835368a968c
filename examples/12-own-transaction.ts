// A worker that has a transaction of its own, and no receiver: each order is charged once, and announced if it was charged. Needs a database:
// TEST_POSTGRES_URL (`npm run services -- up postgres` starts one, and tells its address).
import { type Destination, relay } from 'idempotent-receiver';
import { migrate, postgresOutbox, recordOnce } from 'idempotent-receiver/postgres';
import pg from 'pg';

const schema = `run_${Date.now()}`;
const pool = new pg.Pool({ connectionString: process.env['TEST_POSTGRES_URL'] ?? 'postgres://postgres@127.0.0.1/postgres' });
await migrate(pool, { schema }); // at deployment
await pool.query(`create table ${schema}.charges (order_id text, cents integer)`);

const outbox = postgresOutbox(pool, { destinations: ['charged'], schema });

/** Your own function, with two lines more. */
async function charge(order: { readonly id: string; readonly cents: number }): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    if ((await recordOnce(client, { schema, scope: 'billing', id: order.id })) === 'first') {
      await client.query(`insert into ${schema}.charges values ($1, $2)`, [order.id, order.cents]);
      await outbox.publish(client, 'charged', { id: order.id, body: order, orderingKey: order.id });
    }
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  } finally {
    client.release();
  }
}

const order = { id: 'order-7', cents: 4200 };
await Promise.all([charge(order), charge(order), charge({ id: 'order-8', cents: 100 })]);
await charge(order);
console.log((await pool.query(`select order_id, cents from ${schema}.charges order by order_id`)).rows);

// In a process of its own. For Kafka: kafkaDestination(new Kafka(…), 'charged'); for SQS: sqsDestination(client, queueUrl).
const charged: Destination = {
  async send(messages) {
    for (const { id } of messages) console.log('announced:', id);
    return messages.map(() => ({ state: 'sent' }));
  },
};
await relay({ outbox, to: { charged } }).drain();
await pool.query(`drop schema ${schema} cascade`);
await pool.end();
