import { describe, expect, it } from 'vitest';
import { body, createReceiver, type Message } from '../../src/index.ts';
import { CounterExample, type Place, prove, type Worker } from '../../src/testing/index.ts';

interface Order {
  id: string;
  email: string;
}
const messages = [{ body: JSON.stringify({ id: 'order-1', email: 'Ann@Example.org' }) }];
const orderOf = (message: Message): Order => JSON.parse(message.body as string);

/** What `prove` finds wrong, and how long it took. */
async function counterExample(worker: Worker, options: object = {}): Promise<CounterExample & { ms: number }> {
  const startedAt = performance.now();
  const error = await prove(worker, { messages, ...options }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(CounterExample);
  return Object.assign(error as CounterExample, { ms: performance.now() - startedAt });
}

const receiverOf = ({ store, world }: Place) => ({ store, world, scope: 'billing', key: body((order: Order) => order.id) });

/** Handlers that are written again and again, what they break, and the same done right. */
const classics: { readonly name: string; readonly finds: RegExp; readonly wrong: Worker; readonly right: Worker }[] = [
  {
    name: 'check-then-act',
    finds: /charge order-1 is repeated/,
    wrong:
      ({ database, effect }) =>
      async (message) => {
        const { id } = orderOf(message);
        if (await database.get(id)) return;
        await effect('charge', id);
        await database.set(id, 'done');
      },
    right: (place) =>
      createReceiver({ ...receiverOf(place), guarantee: 'leased' }, (order: Order, ctx) =>
        place.effect('charge', order.id, { key: ctx.key('charge') }),
      ),
  },
  {
    name: 'marking before the effect',
    finds: /charge order-1 is lost/,
    wrong:
      ({ database, effect }) =>
      async (message) => {
        const { id } = orderOf(message);
        if (await database.insert(id, 'done')) await effect('charge', id);
      },
    right: (place) => createReceiver(receiverOf(place), (order: Order, ctx) => ctx.tx.write({ name: 'charge', about: order.id })),
  },
  {
    name: 'an external call without a key',
    finds: /charge order-1 is repeated/,
    wrong: (place) => createReceiver({ ...receiverOf(place), guarantee: 'leased' }, (order: Order) => place.effect('charge', order.id)),
    right: (place) =>
      createReceiver({ ...receiverOf(place), guarantee: 'leased' }, (order: Order, ctx) =>
        place.effect('charge', order.id, { key: ctx.key('charge') }),
      ),
  },
  {
    name: 'publishing after the commit',
    finds: /publish order-1 is lost/,
    wrong:
      ({ database, effect }) =>
      async (message) => {
        const { id } = orderOf(message);
        const isNew = await database.transaction(async (tx) => {
          if (await tx.get(id)) return false;
          await tx.set(id, 'done');
          await tx.write({ name: 'charge', about: id });
          return true;
        });
        if (isNew) await effect('publish', id);
      },
    right:
      ({ database }) =>
      async (message) => {
        const { id } = orderOf(message);
        await database.transaction(async (tx) => {
          if (await tx.get(id)) return;
          await tx.set(id, 'done');
          await tx.write({ name: 'charge', about: id });
          await tx.write({ name: 'publish', about: id });
        });
      },
  },
  {
    name: 'remembering in memory',
    finds: /charge order-1 is repeated/,
    wrong: ({ effect }) => {
      const seen = new Set<string>();
      return async (message) => {
        const { id } = orderOf(message);
        if (seen.has(id)) return;
        await effect('charge', id);
        seen.add(id);
      };
    },
    right: ({ effect }) => {
      return async (message) => {
        const { id } = orderOf(message);
        await effect('charge', id, { key: id });
      };
    },
  },
  {
    name: 'changing the message before it is recorded',
    finds: /charge order-1 is repeated/,
    wrong:
      ({ database }) =>
      async (message) => {
        const order = orderOf(message);
        await database.transaction(async (tx) => {
          if (await tx.get(`${order.id} ${order.email}`)) return;
          order.email = order.email.toLowerCase();
          await tx.write({ name: 'charge', about: order.id });
          await tx.set(`${order.id} ${order.email}`, 'done');
        });
      },
    right: (place) =>
      createReceiver(receiverOf(place), async (order: Order, ctx) => {
        order.email = order.email.toLowerCase();
        await ctx.tx.write({ name: 'charge', about: order.id });
      }),
  },
  {
    name: 'swallowing an error',
    finds: /charge order-1 is lost/,
    wrong: (place) =>
      createReceiver(receiverOf(place), async (order: Order) => {
        await place.effect('charge', order.id, { key: order.id }).catch(() => {});
      }),
    right: (place) =>
      createReceiver({ ...receiverOf(place), guarantee: 'leased' }, async (order: Order) => {
        await place.effect('charge', order.id, { key: order.id });
      }),
  },
  {
    name: 'leaving a timer running',
    finds: /mail order-1 is lost/,
    wrong: (place) =>
      createReceiver(receiverOf(place), (order: Order) => {
        setTimeout(() => void place.effect('mail', order.id, { key: order.id }).catch(() => {}), 1_000);
      }),
    right: (place) =>
      createReceiver({ ...receiverOf(place), guarantee: 'leased' }, async (order: Order) => {
        await new Promise((resolve) => setTimeout(resolve, 1_000));
        await place.effect('mail', order.id, { key: order.id });
      }),
  },
  {
    name: 'not awaiting',
    finds: /charge order-1 is lost/,
    wrong:
      ({ effect }) =>
      (message) => {
        const { id } = orderOf(message);
        void effect('charge', id, { key: id }).catch(() => {});
      },
    right:
      ({ effect }) =>
      async (message) => {
        const { id } = orderOf(message);
        await effect('charge', id, { key: id });
      },
  },
];

describe('prove', () => {
  for (const { name, finds, wrong, right } of classics) {
    it(`finds ${name} in under a second`, async () => {
      const found = await counterExample(wrong);
      expect(found.message).toMatch(finds);
      expect(found.schedule.length).toBeLessThanOrEqual(1);
      expect(found.ms).toBeLessThan(1_000);
    });

    it(`proves what is right instead of ${name}`, async () => {
      const proof = await prove(right, { messages, schedules: 400 });
      expect(proof.withOne).toBeGreaterThan(10);
      expect(proof.withTwo).toBeGreaterThan(100);
    });
  }

  it('tells the shortest schedule as a story, and what would close the gap', async () => {
    const found = await counterExample(classics.find(({ name }) => name === 'an external call without a key')!.wrong);
    expect(found.message).toBe(`charge order-1 is repeated: it happened twice, and has to happen once.

   1. Process A receives message-1
   2. Process A does charge order-1
   3. Process A is killed before it learns that it did charge order-1
   4. Process B receives message-1 again
   5. Process B does charge order-1
   6. Process B acknowledges message-1

An effect is repeated where a process dies, or is overtaken, between the effect and its record. Write both in one transaction (\`ctx.tx\`), or give the system outside an idempotency key (\`ctx.key(name)\`) that is the same for each attempt.`);
    expect(found.schedule).toEqual([{ step: 1, kind: 'killed after' }]);
  });

  it('runs all schedules with one fault first, then as many with two as there is room for, and says so', async () => {
    const { right } = classics[1]!;
    const one = await prove(right, { messages, schedules: 30 });
    expect(one).toMatchObject({ schedules: 30, withOne: 30, withTwo: 0, effects: [{ name: 'charge', about: 'order-1' }] });
    expect(one.says).toBe(`Stood 30 schedules with one fault (of ${one.steps * 7}) and 0 with two (of ${one.says.match(/\d+(?=\)$)/)})`);
    const more = await prove(right, { messages, schedules: one.steps * 7 + 10, faults: ['killed before', 'killed after'] });
    expect(more.withOne).toBe(one.steps * 2);
    expect(more.withTwo).toBeGreaterThan(0);
  });

  it('finds what only two faults bring about', async () => {
    // The second try sends the same key; the third has forgotten that there was a first.
    const twice: Worker =
      ({ database, effect }) =>
      async (message) => {
        const { id } = orderOf(message);
        const tries = Number((await database.get(id)) ?? 0);
        await database.set(id, tries + 1);
        await effect('charge', id, { key: tries < 2 ? id : `${id} again` });
      };
    const found = await counterExample(twice, { faults: ['killed before', 'killed after', 'reply lost'] });
    expect(found.schedule).toHaveLength(2);
    await prove(twice, { messages, schedules: 12, faults: ['killed before', 'killed after', 'reply lost'] });
  });

  it('takes effects that may be repeated as they are declared', async () => {
    const worker: Worker = (place) =>
      createReceiver(receiverOf(place), async (order: Order, ctx) => {
        await place.effect('log', order.id);
        await ctx.tx.write({ name: 'charge', about: order.id });
      });
    await expect(prove(worker, { messages, schedules: 100 })).rejects.toThrow('log order-1 is repeated');
    await prove(worker, { messages, schedules: 100, effects: { log: 'at-least-once' } });
    await prove(worker, { messages, schedules: 100, effects: { log: 'any' } });
  });

  it('proves several messages in one batch, each for itself', async () => {
    const two = ['order-1', 'order-2'].map((id) => ({ body: JSON.stringify({ id, email: '' }) }));
    const proof = await prove(classics[1]!.right, { messages: two, schedules: 300 });
    expect(proof.effects.map(({ about }) => about)).toEqual(['order-1', 'order-2']);
  });

  it('gives each process a memory of its own, and proved code virtual timers, while others keep the real ones', async () => {
    const real = { setTimeout, now: Date.now };
    let ticked = false;
    const proving = prove(
      ({ effect }) =>
        async () => {
          await new Promise((resolve) => setTimeout(resolve, 3_600_000));
          expect(Date.now()).toBeGreaterThan(Date.UTC(2026, 0, 1));
          await effect('charge', 'it', { key: 'it' });
        },
      { messages, schedules: 20 },
    );
    await new Promise<void>((resolve) => setTimeout(() => ((ticked = true), resolve()), 1));
    await proving;
    expect(ticked).toBe(true);
    expect({ setTimeout, now: Date.now }).toEqual(real);
  });

  it('refuses what it can prove nothing about', async () => {
    await expect(prove(() => () => {}, { messages: [] })).rejects.toThrow('Expected `messages` to be at least one message');
    await expect(prove(() => () => {}, { messages })).rejects.toThrow('Expected `worker` to be a worker that has effects');
    await expect(prove('no' as never, { messages })).rejects.toThrow('Expected `worker` to be a function');
    const failing = prove(() => () => Promise.reject(new Error('no')), { messages });
    await expect(failing).rejects.toThrow('A run without any fault does not come to its end');
  });
});
