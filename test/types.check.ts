/**
 * Type tests. Nothing here runs: `tsc -p test/tsconfig.json` compiles it, and fails if a wrong line compiles or a right one does not.
 */
import type { DatabaseSync } from 'node:sqlite';
import { z } from 'zod';
import { memoryStore } from '../adapters/stores/memory.ts';
import { sqliteOutbox } from '../adapters/stores/sqlite/index.ts';
import type { DedupStore, Destination, Journal, Outbox, OutboxQueue, ReceiverError, TransactionalStore } from '../src/index.ts';
import { body, type Context, createReceiver, header, once, type Receiver, relay, steps } from '../src/index.ts';

/** Compiles only if both are the same type. */
declare function same<A, B>(...equal: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? [] : [never]): void;

// @ts-expect-error the test of the tests: two types
same<string, number>();
// @ts-expect-error nor does `any` pass for a type
same<any, string>();

interface Db {
  query(sql: string): Promise<number>;
}
declare const dedup: DedupStore;
declare const both: DedupStore & TransactionalStore<Db>;
declare const outbox: Outbox<Db, 'orders' | 'mails'> & OutboxQueue<'orders' | 'mails'>;
declare const destination: Destination;
declare const sqlite: DatabaseSync;
declare const transactions: TransactionalStore<Db>;

const base = { scope: 'billing', key: header('message-id') } as const;
const Order = z.object({ id: z.string(), amount: z.number().default(1) });
interface OrderType {
  id: string;
  amount: number;
}

export function payloads(): void {
  // From the schema: its output, not its input.
  createReceiver({ ...base, store: dedup, schema: Order }, (order) => {
    same<typeof order, OrderType>();
    // @ts-expect-error there is no such member
    order.total;
  });
  createReceiver({ ...base, store: dedup, schema: z.string().transform((text) => text.length) }, (length) => same<typeof length, number>());
  createReceiver({ ...base, store: both, schema: Order }, (order, ctx) => {
    same<typeof order, OrderType>();
    same<typeof ctx.tx, Db>();
  });

  // From the handler's own annotation, where there is no schema.
  createReceiver({ ...base, store: dedup }, (order: OrderType) => same<typeof order, OrderType>());
  createReceiver({ ...base, store: dedup }, async ({ id }: { id: string }) => same<typeof id, string>());

  // Unknown, where nobody has said anything.
  createReceiver({ ...base, store: dedup }, (payload) => same<typeof payload, unknown>());
  createReceiver({ ...base, store: both }, (payload, ctx) => {
    same<typeof payload, unknown>();
    same<typeof ctx.tx, Db>();
  });

  // @ts-expect-error the schema gives another payload than the handler takes
  createReceiver({ ...base, store: dedup, schema: Order }, (order: { total: number }) => order.total);
  // @ts-expect-error a handler is needed
  createReceiver({ ...base, store: dedup });
}

export function contexts(): void {
  createReceiver({ ...base, store: dedup }, (_, ctx) => {
    same<typeof ctx, Context<'leased'>>();
    same<typeof ctx.attempt, number>();
    same<typeof ctx.signal, AbortSignal>();
    same<ReturnType<typeof ctx.key>, string>();
    // @ts-expect-error no transaction on this store
    ctx.tx;
    // @ts-expect-error no fence in a leased handler: nothing checks it
    ctx.fence;
  });
  createReceiver({ ...base, store: both }, (_, ctx) => {
    same<typeof ctx.tx, Db>();
    // @ts-expect-error the database's type is kept
    ctx.tx.execute('select 1');
    // @ts-expect-error no fence in a transaction: it needs none
    ctx.fence;
  });
  createReceiver({ ...base, store: transactions }, (_, ctx) => same<typeof ctx.tx, Db>());
  createReceiver({ ...base, store: both, guarantee: 'transactional' }, (_, ctx) => same<typeof ctx.tx, Db>());
  createReceiver({ ...base, store: both, guarantee: 'leased' }, (_, ctx) => {
    // @ts-expect-error leased by choice: there is no transaction
    ctx.tx;
    // @ts-expect-error nor a fence
    ctx.fence;
  });
  createReceiver({ ...base, store: both, guarantee: 'fenced' }, (_, ctx) => {
    same<typeof ctx.fence, number>();
    // @ts-expect-error the effect is on a resource that checks the fence, not in a transaction
    ctx.tx;
  });
  createReceiver({ ...base, store: dedup, guarantee: 'fenced' }, (order: OrderType, ctx) => {
    same<typeof order, OrderType>();
    same<typeof ctx.fence, number>();
  });
}

export function guarantees(): void {
  // @ts-expect-error a memory store has no transactions
  createReceiver({ ...base, store: memoryStore(), guarantee: 'transactional' }, () => {});
  // @ts-expect-error a store that has only transactions has no leases
  createReceiver({ ...base, store: transactions, guarantee: 'leased' }, () => {});
  // @ts-expect-error and no fences
  createReceiver({ ...base, store: transactions, guarantee: 'fenced' }, () => {});
  // @ts-expect-error nobody promises that
  createReceiver({ ...base, store: both, guarantee: 'exactly-once' }, () => {});
  // @ts-expect-error a pool is no store
  createReceiver({ ...base, store: { query() {} } }, () => {});

  // The receiver says what it promises, as a literal.
  same<ReturnType<typeof createReceiver<typeof both>>['guarantee'], 'transactional'>();
  const leased = createReceiver({ ...base, store: memoryStore() }, () => {});
  const transactional = createReceiver({ ...base, store: both }, () => {});
  const only = createReceiver({ ...base, store: transactions }, () => {});
  const byChoice = createReceiver({ ...base, store: both, guarantee: 'leased' }, () => {});
  const fenced = createReceiver({ ...base, store: dedup, guarantee: 'fenced' }, () => {});
  same<typeof leased.guarantee, 'leased'>();
  same<typeof transactional.guarantee, 'transactional'>();
  same<typeof only.guarantee, 'transactional'>();
  same<typeof byChoice.guarantee, 'leased'>();
  same<typeof fenced.guarantee, 'fenced'>();

  // A function that insists on a guarantee can say so.
  const insist = (receiver: Receiver<'transactional'>) => receiver;
  insist(transactional);
  // @ts-expect-error leased is not enough
  insist(leased);
  // A broker adapter takes any.
  const adapt = (receiver: Receiver) => receiver;
  adapt(transactional);
  adapt(leased);
  adapt(fenced);
}

export function storeDown(): void {
  createReceiver({ ...base, store: dedup, onStoreDown: 'run' }, () => {});
  createReceiver({ ...base, store: both, guarantee: 'leased', onStoreDown: 'run' }, () => {});
  createReceiver({ ...base, store: both, onStoreDown: 'retry' }, () => {});
  createReceiver({ ...base, store: dedup, guarantee: 'fenced', onStoreDown: 'retry' }, () => {});
  // @ts-expect-error a transaction can't be opened on a store that is down
  createReceiver({ ...base, store: both, onStoreDown: 'run' }, () => {});
  // @ts-expect-error the same, by name
  createReceiver({ ...base, store: both, guarantee: 'transactional', onStoreDown: 'run' }, () => {});
  // @ts-expect-error without a store there is no fence
  createReceiver({ ...base, store: dedup, guarantee: 'fenced', onStoreDown: 'run' }, () => {});
}

export function required(): void {
  // @ts-expect-error no default key
  createReceiver({ scope: 'billing', store: dedup }, () => {});
  // @ts-expect-error no default scope
  createReceiver({ key: header('message-id'), store: dedup }, () => {});
  // @ts-expect-error no default store
  createReceiver({ ...base }, () => {});
  // @ts-expect-error a misspelled option
  createReceiver({ ...base, store: dedup, leaseMS: 5 }, () => {});
  // @ts-expect-error an id is text
  createReceiver({ ...base, store: dedup, key: body((order: OrderType) => order.amount) }, () => {});
  // @ts-expect-error an event that does not exist
  createReceiver({ ...base, store: dedup, on: { handled() {} } }, () => {});
  createReceiver(
    { ...base, store: dedup, key: body((order: OrderType) => [order.id, 'x']), on: { completed: ({ durationMs }) => durationMs } },
    () => {},
  );
}

export async function onces(): Promise<void> {
  const options = { store: dedup, scope: 'charge', key: (order: OrderType) => order.id };
  const charge = once(options, (order: OrderType) => ({ receipt: order.amount }));
  same<Parameters<typeof charge>, [order: OrderType]>();
  same<ReturnType<typeof charge>, Promise<{ receipt: number }>>();
  // @ts-expect-error an order is needed
  void charge();
  // @ts-expect-error an order is needed, not its id
  void charge('a');

  // A promise is not wrapped twice.
  const later = once(options, async (order: OrderType) => order.id);
  same<ReturnType<typeof later>, Promise<string>>();

  // Several parameters, and the key function's own types.
  const add = once({ store: dedup, scope: 'add', key: (a: number, b: string) => `${a}${b}` }, (a, b) => `${b}${a}`);
  same<Parameters<typeof add>, [a: number, b: string]>();
  // @ts-expect-error in this order
  void add('b', 1);

  // @ts-expect-error no default key
  once({ store: dedup, scope: 'charge' }, (order: OrderType) => order.id);
  // @ts-expect-error an id is text
  once({ store: dedup, scope: 'charge', key: (order: OrderType) => order.amount }, (order: OrderType) => order.id);
  // @ts-expect-error the key is made of other parameters than the function has
  once({ store: dedup, scope: 'charge', key: (order: OrderType) => order.id }, (order: string) => order);
  // @ts-expect-error once is leased: a store of transactions alone won't do
  once({ ...options, store: transactions }, (order: OrderType) => order.id);
  // @ts-expect-error once is leased, and can't be told otherwise
  once({ ...options, guarantee: 'fenced' }, (order: OrderType) => order.id);

  // Middleware.
  const middleware = once(options);
  const charged = middleware(async (order: OrderType) => order.amount);
  same<Parameters<typeof charged>, [order: OrderType]>();
  same<ReturnType<typeof charged>, Promise<number>>();
  const withMore = middleware(async (order: OrderType, signal: AbortSignal) => [order, signal] as const);
  same<Parameters<typeof withMore>, [order: OrderType, signal: AbortSignal]>();
  // @ts-expect-error the key is made of an order
  middleware(async (id: string) => id);

  // `this` is kept.
  const named = once(options, function (this: { name: string }, order: OrderType) {
    return `${this.name} ${order.id}`;
  });
  // @ts-expect-error it needs its `this`
  void named({ id: 'a', amount: 1 });
  void named.call({ name: 'till' }, { id: 'a', amount: 1 });

  const error = (await charge({ id: 'a', amount: 1 }).catch((thrown: ReceiverError) => thrown)) as ReceiverError;
  same<typeof error.retryAfterMs, number | undefined>();
}

const orders = { store: dedup, scope: 'charge', key: (order: OrderType) => order.id };

export class Till {
  readonly name = 'till';

  @once(orders)
  async charge(order: OrderType): Promise<string> {
    return `${order.id} ${this.name}`;
  }

  @once(orders)
  async withMore(order: OrderType, more?: boolean): Promise<readonly [string, boolean | undefined]> {
    return [order.id, more];
  }

  @once({ store: dedup, scope: 'mail', key: (to: string) => to })
  static async greet(to: string): Promise<void> {
    void to;
  }

  // @ts-expect-error once makes a promise of it
  @once(orders)
  now(order: OrderType): string {
    return order.id;
  }

  // @ts-expect-error the key is made of an order
  @once(orders)
  async other(id: number): Promise<number> {
    return id;
  }

  // @ts-expect-error not a method
  @once(orders)
  accessor field = 1;
}

export async function till(): Promise<void> {
  const result = await new Till().charge({ id: 'a', amount: 1 });
  same<typeof result, string>();
}

declare const journaled: DedupStore & Journal;
declare const journaledBoth: DedupStore & Journal & TransactionalStore<Db>;
const Receipt = z.object({ at: z.coerce.date() });

export function stepsOfHandlers(): void {
  createReceiver({ ...base, store: journaled }, async (_, ctx) => {
    same<typeof ctx, Context<'leased', never, true>>();
    const receipt = await ctx.step('charge', async ({ key, fence, signal }) => ({ key, fence, aborted: signal.aborted }));
    same<typeof receipt, { key: string; fence: number; aborted: boolean }>();
    const length = await ctx.step('length', () => 7);
    same<typeof length, number>();
    // What the schema gives, not what the function gave.
    const charge = await ctx.step('charge 2', async () => ({ at: new Date() }), { schema: Receipt });
    same<typeof charge, { at: Date }>();
    const confirmed = await ctx.step('charge 3', async () => 'receipt', {
      confirm: async (key) => (key === '' ? 'unknown' : { done: key }),
    });
    same<typeof confirmed, string>();
    // @ts-expect-error what is confirmed is what the step would have given
    await ctx.step('charge 4', async () => 'receipt', { confirm: async () => ({ done: 7 }) });
    // @ts-expect-error no such answer
    await ctx.step('charge 5', async () => 'receipt', { confirm: async () => 'maybe' });
    // @ts-expect-error only a step of a saga can be undone
    await ctx.step('charge 6', async () => 'receipt', { undo: async () => {} });
    const trip = await ctx.saga('trip', async (saga) => {
      const hotel = await saga.step('hotel', async () => 7, {
        undo: (booking, { key }) => same<[typeof booking, typeof key], [number, string]>(),
      });
      await saga.step('car', async () => ({ at: '' }), { schema: Receipt, undo: (car) => same<typeof car, { at: Date }>() });
      return `${hotel}`;
    });
    same<typeof trip, string>();
    same<ReturnType<typeof ctx.now>, Promise<number>>();
  });
  createReceiver({ ...base, store: journaledBoth, guarantee: 'fenced' }, (_, ctx) => same<typeof ctx, Context<'fenced', never, true>>());
  createReceiver({ ...base, store: dedup }, (_, ctx) => {
    same<[ReturnType<typeof ctx.uuid>, ReturnType<typeof ctx.random>], [string, number]>();
    // @ts-expect-error the store keeps no journal
    ctx.step;
    // @ts-expect-error nor a saga
    ctx.saga;
    // @ts-expect-error nor a time
    ctx.now;
  });
  // A rollback would undo what is known of the steps.
  createReceiver({ ...base, store: journaledBoth }, (_, ctx) => {
    same<typeof ctx.tx, Db>();
    // @ts-expect-error no journal in a transaction
    ctx.step;
  });
  createReceiver({ ...base, store: journaledBoth, journal: journaled }, (_, ctx) => {
    same<typeof ctx, Context<'transactional', Db, true>>();
    void ctx.step('charge', () => ctx.tx.query('select 1'));
  });
  // @ts-expect-error a store that is no journal
  createReceiver({ ...base, store: journaledBoth, journal: dedup }, () => {});
  // @ts-expect-error the steps of a leased handler are kept in its store
  createReceiver({ ...base, store: journaledBoth, guarantee: 'leased', journal: journaled }, () => {});
}

export function publishing(): void {
  createReceiver({ ...base, store: both, outbox }, async (_, ctx) => {
    same<typeof ctx, Context<'transactional', Db, false, 'orders' | 'mails'>>();
    const published = await ctx.publish('orders', { body: { id: 7 }, orderingKey: 'a' });
    same<typeof published, void>();
    // @ts-expect-error the outbox has no such destination
    await ctx.publish('others', { body: 1 });
    // @ts-expect-error a message has a body
    await ctx.publish('orders', {});
  });
  createReceiver({ ...base, store: both, outbox, schema: Order }, (order, ctx) => {
    same<typeof order, OrderType>();
    void ctx.publish('mails', [{ body: order }]);
  });
  createReceiver({ ...base, store: both }, (_, ctx) => {
    // @ts-expect-error there is no outbox
    ctx.publish;
  });
  // @ts-expect-error nothing to publish in
  createReceiver({ ...base, store: both, guarantee: 'leased', outbox }, () => {});
  // @ts-expect-error another database's
  createReceiver({ ...base, store: both, outbox: sqliteOutbox(sqlite, { destinations: ['orders'] }) }, () => {});
  relay({ outbox, to: { orders: destination } });
  // @ts-expect-error the outbox has no such destination
  relay({ outbox, to: { others: destination } });
}

export async function stepsOfWorkers(): Promise<void> {
  const orders = steps({ store: journaled, scope: 'fulfil' });
  const receipt = await orders.run('order 7', async (run) => {
    same<typeof run.fence, number>();
    // @ts-expect-error there is no message
    run.message;
    return run.step('charge', ({ key }) => key.length);
  });
  same<typeof receipt, number>();
  // @ts-expect-error the store keeps no journal
  steps({ store: dedup, scope: 'fulfil' });
}
