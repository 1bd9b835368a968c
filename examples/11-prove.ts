// Your own handler, killed at each step that it takes: does it charge once whatever happens? No broker, no database, and no card is charged.
import { body, createReceiver } from 'idempotent-receiver';
import { CounterExample, type Place, prove } from 'idempotent-receiver/testing';

interface Order {
  readonly id: string;
}

const receiver = ({ store, world }: Place) => ({ store, world, scope: 'billing', key: body((order: Order) => order.id) });
const messages = [{ body: JSON.stringify({ id: 'order-1' }) }];

// Deduplicated, and yet it charges twice when its process dies at the wrong moment.
try {
  await prove((place) => createReceiver({ ...receiver(place), guarantee: 'leased' }, (order: Order) => place.effect('charge', order.id)), {
    messages,
  });
} catch (error) {
  if (!(error instanceof CounterExample)) throw error;
  console.log(error.message, '\n');
}

// With the key that stays the same for each attempt, the gateway knows the second charge.
const proof = await prove(
  (place) =>
    createReceiver({ ...receiver(place), guarantee: 'leased' }, (order: Order, ctx) =>
      place.effect('charge', order.id, { key: ctx.key('charge') }),
    ),
  { messages },
);
console.log(proof.says);
