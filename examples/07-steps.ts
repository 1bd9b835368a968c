// A worker that you already have, in steps: what has been done is not done again, whoever crashes in between.
import { DatabaseSync } from 'node:sqlite';
import { RetryAfter, steps } from 'idempotent-receiver';
import { sqliteStore } from 'idempotent-receiver/sqlite';

// A payment gateway that ignores idempotency keys, and loses its first reply.
const payments = new Map<string, { readonly receipt: string }>();
const gateway = {
  async charge(cents: number, key: string) {
    const receipt = { receipt: `receipt ${payments.size + 1} for ${cents}` };
    payments.set(key, receipt);
    if (payments.size === 1) throw new Error('socket hang up');
    return receipt;
  },
  find: async (key: string) => payments.get(key),
};
let busy = 1;
const mailer = {
  async send(to: string, text: string, messageId: string) {
    if (busy-- > 0) throw new RetryAfter(1_000, `The mail server is busy, and refuses ${messageId}`);
    return `${to}: ${text} (${messageId})`;
  },
};

const orders = steps({ store: sqliteStore(new DatabaseSync(':memory:')), scope: 'fulfil' });

async function fulfil(order: { readonly id: string; readonly cents: number; readonly email: string }) {
  return orders.run(order.id, async (run) => {
    const { receipt } = await run.step('charge', ({ key }) => gateway.charge(order.cents, key), {
      // Its outcome is unknown when the process died, or when no reply came: asked before anything is done again.
      async confirm(key) {
        const found = await gateway.find(key);
        return found ? { done: found } : 'absent';
      },
    });
    // The same on each attempt, as are `run.random(name)` and `await run.now()`.
    return run.step('mail', () => mailer.send(order.email, receipt, run.uuid('mail')));
  });
}

// Your queue delivers the job until it has succeeded.
for (let delivered = false; !delivered; ) {
  try {
    console.log(await fulfil({ id: 'order-7', cents: 4200, email: 'ann@example.org' }));
    delivered = true;
  } catch (error) {
    console.log(`to be delivered again: ${error}`);
  }
}
console.log(payments.size, 'payment');
await orders.stop();
