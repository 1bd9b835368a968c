// Any function of a worker that you already have: once per key, whoever calls it, and everybody gets the first call's result.
import { once, ReceiverError } from 'idempotent-receiver';
import { memoryStore } from 'idempotent-receiver/memory';

interface Order {
  readonly id: string;
  readonly cents: number;
}

const store = memoryStore();
let calls = 0;

const charge = once({ store, scope: 'charge', key: (order: Order) => order.id, fingerprint: (order) => order }, async (order) => {
  calls++;
  return { receipt: `receipt for ${order.cents}` };
});

const order = { id: 'order-7', cents: 4200 };
console.log(await Promise.all([charge(order), charge(order), charge({ ...order })]));
console.log(calls, 'call');

try {
  await charge({ id: 'order-7', cents: 9999 });
} catch (error) {
  if (error instanceof ReceiverError) console.log(error.code);
}
