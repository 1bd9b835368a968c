import { getEventListeners } from 'node:events';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { sqliteOutbox } from '../../adapters/stores/sqlite/index.ts';
import { type Destination, type OutboxMessage, type OutboxQueue, type Outgoing, type RelayOptions, relay } from '../../src/index.ts';
import { virtualWorld } from '../../src/testing/virtual-world.ts';
import { message, type Name, scripted, textOf } from './outbox-contract.ts';

/** A relay in virtual time, on an outbox in memory. */
function stand(destination: Destination, options: Partial<RelayOptions<Name>> = {}) {
  const world = virtualWorld({ seed: 7 });
  const db = new DatabaseSync(':memory:');
  const outbox = sqliteOutbox(db, { destinations: ['orders', 'mails'], world });
  const errors: string[] = [];
  const onError = (error: unknown, to: string) => void errors.push(`${to}: ${(error as Error).message}`);
  const stop = new AbortController();
  const sending = relay({ outbox, to: { orders: destination }, world, onError, ...options });
  return {
    world,
    outbox,
    errors,
    stop,
    sending,
    publish(...messages: OutboxMessage[]): void {
      db.exec('begin');
      outbox.publish(db, 'orders', messages);
      db.exec('commit');
    },
    /** Runs the relay until it is stopped. */
    start: () => sending.run(stop.signal),
    waiting: async () => (await outbox.stats()).reduce((sum, { waiting }) => sum + waiting, 0),
  };
}

const texts = ({ got }: { got: readonly { text: string }[] }) => got.map(({ text }) => text);
const failed = (reason: string) => ({ state: 'failed', error: new Error(reason) }) as const;

describe('a relay', () => {
  it('sends what is there in order, then what comes, within one poll', async () => {
    const destination = scripted();
    const { world, publish, start, stop, waiting } = stand(destination, { pollMs: 200 });
    publish(message('1', 'a'), message('2', 'a'), message('3'));
    const running = start();
    await world.advance(1);
    expect(texts(destination)).toEqual(['1', '2', '3']);
    publish(message('4', 'a'));
    await world.advance(200);
    expect(texts(destination)).toEqual(['1', '2', '3', '4']);
    expect(await waiting()).toBe(0);
    stop.abort();
    await running;
    await world.advance(20_000);
    expect(world.timers).toBe(0);
  });

  it('drains: sends what is due, and ends', async () => {
    const destination = scripted();
    const { publish, sending, world } = stand(destination, { batchSize: 2 });
    publish(...['1', '2', '3', '4', '5'].map((text) => message(text, 'a')));
    await sending.drain();
    expect(destination.sends).toEqual([['1', '2'], ['3', '4'], ['5']]);
    expect(world.timers).toBe(0);
    await expect(sending.drain()).rejects.toMatchObject({ code: 'stopped' });
  });

  it('is patient with a destination that is down: it tries again after pauses that grow, parks nothing, and loses no order', async () => {
    let up = false;
    const destination = scripted(() => (up ? { state: 'sent' } : failed('down')));
    const { world, publish, start, stop, errors, outbox } = stand(destination, { maxAttempts: 2, backoff: { firstMs: 10, maxMs: 10 } });
    publish(...Array.from({ length: 40 }, (_, i) => message(String(i), `k${i % 4}`)));
    const running = start();
    await world.advance(3_600_000);
    expect(destination.sends.length).toBeGreaterThan(100);
    expect(destination.sends.length).toBeLessThan(400);
    expect(await outbox.listParked({ limit: 10 })).toEqual([]);
    expect(errors).toContain('orders: down');
    up = true;
    await world.advance(60_000);
    for (const key of [0, 1, 2, 3]) {
      expect(texts(destination).filter((text) => Number(text) % 4 === key)).toEqual(
        Array.from({ length: 10 }, (_, i) => String(i * 4 + key)),
      );
    }
    stop.abort();
    await running;
  });

  it('finds the one message by which a whole batch fails, sends all others, and parks it after `maxAttempts`', async () => {
    // As a broker that closes the connection: nothing of a batch with it is sent, and nobody says why.
    const inner = scripted();
    const destination: Destination = {
      send: (messages, signal) =>
        messages.some((each) => textOf(each) === 'poison') ? Promise.reject(new Error('reset')) : inner.send(messages, signal),
    };
    const { world, publish, start, stop, outbox } = stand(destination, { maxAttempts: 3, backoff: { firstMs: 1_000, maxMs: 4_000 } });
    const all = Array.from({ length: 100 }, (_, i) => (i === 37 ? 'poison' : String(i)));
    publish(...all.map((text, i) => message(text, `k${i % 10}`)));
    const running = start();
    // Others have to get through for it to be known that the failure is its own.
    for (let round = 0; round < 10; round++) {
      await world.advance(10_000);
      publish(message(`late ${round}`, 'k8'));
    }
    await world.advance(60_000);
    const parked = await outbox.listParked({ limit: 10 });
    expect(parked.map(textOf)).toEqual(['poison']);
    expect(parked[0]).toMatchObject({ failures: 3, reason: 'Error: reset' });
    const late = Array.from({ length: 10 }, (_, i) => `late ${i}`);
    expect(texts(inner).toSorted()).toEqual([...all.filter((text) => text !== 'poison'), ...late].toSorted());
    expect(texts(inner).filter((text) => /7$/.test(text) && text !== 'late 7')).toEqual([
      '7',
      '17',
      '27',
      '47',
      '57',
      '67',
      '77',
      '87',
      '97',
    ]);
    stop.abort();
    await running;
  });

  it('parks a message that the destination refuses after `maxAttempts`; those behind it with its ordering key wait for that, others do not', async () => {
    const destination = scripted((each) =>
      textOf(each) === 'bad' ? { state: 'refused', error: new Error('too long') } : { state: 'sent' },
    );
    const { world, publish, start, stop, outbox, errors } = stand(destination, {
      maxAttempts: 3,
      backoff: { firstMs: 1_000, maxMs: 60_000 },
    });
    publish(message('1', 'a'), message('bad', 'a'), message('2', 'a'), message('3', 'b'));
    const running = start();
    await world.advance(300);
    expect(texts(destination)).toEqual(['1', '3']);
    await world.advance(4_000);
    expect(texts(destination)).toEqual(['1', '3', '2']);
    expect(errors.filter((error) => error === 'orders: too long')).toHaveLength(3);
    const [parked] = await outbox.listParked({ limit: 10 });
    expect(parked).toMatchObject({ failures: 3, reason: 'Error: too long' });
    // Repaired, it is sent; the order is lost by then.
    expect(await outbox.replay(parked!.number)).toBe(true);
    stop.abort();
    await running;
  });

  it('keeps going when a take fails, and when the hook for errors does', async () => {
    const destination = scripted();
    let failures = 3;
    const { world, outbox, publish } = stand(destination);
    const shaky: OutboxQueue<Name> = {
      ...outbox,
      take: (...args) => (failures-- > 0 ? Promise.reject(new Error('no database')) : outbox.take(...args)),
    };
    const told: unknown[] = [];
    const stop = new AbortController();
    const onError = (error: unknown) => {
      told.push(error);
      throw new Error('logger');
    };
    const running = relay({ outbox: shaky, to: { orders: destination }, world, onError }).run(stop.signal);
    publish(message('1'));
    await world.advance(2_000);
    expect(texts(destination)).toEqual(['1']);
    expect(told).toHaveLength(3);
    stop.abort();
    await running;
  });

  it('takes an answer that is too short for a failure', async () => {
    const destination: Destination = { send: async (messages) => messages.slice(1).map(() => ({ state: 'sent' })) };
    const { world, publish, start, stop, errors, waiting } = stand(destination);
    publish(message('1'), message('2'));
    const running = start();
    await world.advance(1);
    expect(errors[0]).toBe('orders: Expected 2 answers from destination orders, got 1');
    expect(await waiting()).toBe(2);
    stop.abort();
    await running;
  });

  it('leaves destinations that it does not have to other relays', async () => {
    const orders = scripted();
    const mails = scripted();
    const { world, outbox, publish, sending } = stand(orders);
    publish(message('order'));
    await sending.drain();
    expect(mails.got).toEqual([]);
    await relay({ outbox, to: { mails }, world }).drain();
    expect([texts(orders), texts(mails)]).toEqual([['order'], []]);
  });

  it('lets what is under way end when it is stopped, and takes nothing more', async () => {
    const gate = Promise.withResolvers<void>();
    const destination = scripted(async () => (await gate.promise, { state: 'sent' }));
    const { world, publish, start, stop, waiting } = stand(destination, { batchSize: 1 });
    publish(message('1'), message('2'));
    const running = start();
    await world.advance(10);
    stop.abort();
    await world.advance(5_000);
    gate.resolve();
    await running;
    expect(texts(destination)).toEqual(['1']);
    expect(await waiting()).toBe(1);
    expect(world.timers).toBe(0);
  });

  it('tells a destination that hangs to end after `graceMs`, and closes it', async () => {
    let closed = 0;
    const destination: Destination = {
      send: (_, signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted')))),
      close: async () => void closed++,
    };
    const { world, publish, sending, stop, waiting } = stand(destination);
    publish(message('1'));
    const running = sending.run(stop.signal, { graceMs: 3_000 });
    await world.advance(10);
    stop.abort();
    await world.advance(2_999);
    expect(closed).toBe(0);
    await world.advance(1);
    await running;
    expect(closed).toBe(1);
    expect(await waiting()).toBe(1);
  });

  it('ends although its database does not answer, and sends nothing after its end', async () => {
    let closed = 0;
    const destination = Object.assign(scripted(), { close: async () => void closed++ });
    const { world, outbox, stop } = stand(destination);
    const silence = Promise.withResolvers<void>();
    let fates: unknown;
    const silent: OutboxQueue<Name> = {
      ...outbox,
      async take(_name, _limit, send) {
        await silence.promise;
        fates = await send([{ id: '1', orderingKey: undefined, body: null, headers: {}, failures: 0 }]);
        return 1;
      },
    };
    const running = relay({ outbox: silent, to: { orders: destination }, world }).run(stop.signal, { graceMs: 3_000 });
    stop.abort();
    await world.advance(5_000);
    await running;
    expect(closed).toBe(1);
    silence.resolve();
    await world.settle();
    expect(fates).toEqual([{ as: 'left' }]);
    expect(texts(destination)).toEqual([]);
    expect(world.timers).toBe(0);
  });

  it('is woken by an outbox that can tell, and by its polls where that fails', async () => {
    const destination = scripted();
    const { world, outbox, publish } = stand(destination);
    let wake: (name: string) => void = () => {};
    let listens = 0;
    const telling: OutboxQueue<Name> = {
      ...outbox,
      listen: (ring, signal) => {
        if (listens++ === 0) return Promise.reject(new Error('no connection'));
        wake = ring;
        return new Promise((resolve) => signal.addEventListener('abort', () => resolve()));
      },
    };
    const stop = new AbortController();
    const errors: unknown[] = [];
    const running = relay({
      outbox: telling,
      to: { orders: destination },
      world,
      pollMs: 60_000,
      onError: (error, from) => errors.push([from, (error as Error).message]),
    }).run(stop.signal);
    await world.advance(2_000);
    expect(errors).toEqual([['listen', 'no connection']]);
    publish(message('1'));
    await world.advance(10);
    expect(texts(destination)).toEqual([]);
    wake('mails');
    wake('orders');
    await world.settle();
    await world.advance(1);
    expect(texts(destination)).toEqual(['1']);
    publish(message('2'));
    await world.advance(60_000);
    expect(texts(destination)).toEqual(['1', '2']);
    stop.abort();
    await running;
    expect(world.timers).toBe(0);
  });

  it('drains also when the database is not there at first', async () => {
    const destination = scripted();
    const { world, outbox, publish } = stand(destination);
    let failures = 2;
    const take: typeof outbox.take = (...args) => (failures-- > 0 ? Promise.reject(new Error('no database')) : outbox.take(...args));
    publish(message('1'));
    const draining = relay({ outbox: { ...outbox, take }, to: { orders: destination }, world, onError: () => {} }).drain();
    await world.advance(1_000);
    await draining;
    expect(texts(destination)).toEqual(['1']);
  });

  it('leaves nothing on the signal that it was given', async () => {
    const { sending, stop } = stand(scripted());
    await sending.drain(stop.signal);
    expect(getEventListeners(stop.signal, 'abort')).toEqual([]);
  });

  it('warns if nobody is told about failures', async () => {
    const { world, publish, outbox } = stand(scripted());
    publish(message('1'));
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    const stop = new AbortController();
    const running = relay({ outbox, to: { orders: { send: async () => [failed('down')] } }, world }).run(stop.signal);
    expect(await warned).toMatchObject({
      name: 'IdempotentReceiverWarning',
      message: 'relay to orders: Error: down',
      cause: new Error('down'),
    });
    stop.abort();
    await running;
  });

  it('takes any number of tries, and a first delay that is longer than the longest by default', () => {
    const { outbox } = stand(scripted());
    const to = { orders: scripted() };
    expect(() => relay({ outbox, to, maxAttempts: Number.POSITIVE_INFINITY })).not.toThrow();
    expect(() => relay({ outbox, to, backoff: { firstMs: 3_600_000 } })).not.toThrow();
    expect(() => relay({ outbox, to, backoff: { maxMs: 2_000 } })).not.toThrow();
  });

  it.each<[string, object, string]>([
    ['no outbox', { outbox: undefined }, '`outbox` to be an outbox'],
    ['no destination', { to: {} }, '`to` to be `{ name: destination }`'],
    [
      'a destination that the outbox does not have',
      { to: { others: scripted() } },
      '`to` to be a subset of the outbox\'s destinations (orders, mails), got `"others"`',
    ],
    ['a destination that can not send', { to: { orders: {} } }, '`to.orders` to be a destination'],
    ['a destination that is undefined', { to: { orders: undefined } }, '`to.orders` to be a destination'],
    ['no batch', { batchSize: 0 }, '`batchSize` to be a whole number from 1 to 10000'],
    ['half a message', { batchSize: 1.5 }, '`batchSize` to be a whole number from 1 to 10000'],
    ['no tries', { maxAttempts: 0 }, '`maxAttempts` to be a whole number of 1 or more, or Infinity'],
    ['half a try', { maxAttempts: 1.5 }, '`maxAttempts` to be a whole number of 1 or more, or Infinity'],
    ['a delay before now', { backoff: { firstMs: -1 } }, '`backoff.firstMs` to be a number of 0 or more'],
    ['a backoff that shrinks', { backoff: { firstMs: 10, maxMs: 5 } }, '`backoff.maxMs` to be a number of 10 or more'],
    ['a poll without a pause', { pollMs: 0 }, '`pollMs` to be a number of 1 or more'],
  ])('is not made with %s', (_, options, complaint) => {
    const { outbox } = stand(scripted());
    expect(() => relay({ outbox, to: { orders: scripted() }, ...options } as RelayOptions<Name>)).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining(complaint) }),
    );
  });

  it('is not run with a grace that is no time, nor twice', async () => {
    const { sending, stop } = stand(scripted());
    await expect(sending.run(stop.signal, { graceMs: -1 })).rejects.toThrow('`graceMs` to be a number of 0 or more');
    await sending.drain();
    await expect(sending.drain()).rejects.toMatchObject({
      code: 'stopped',
      message: expect.stringContaining('a relay that has not been run'),
    });
  });
});

describe('two relays on one SQLite file in memory', () => {
  it('the second one takes over when the first has not come back within `leaseMs`, whose answer is then not written any more', async () => {
    const world = virtualWorld();
    const db = new DatabaseSync(':memory:');
    const options = { destinations: ['orders'], world, leaseMs: 1_000 } as const;
    const [first, second] = [sqliteOutbox(db, options), sqliteOutbox(db, options)];
    db.exec('begin');
    first.publish(db, 'orders', [message('1', 'k'), message('2', 'k')]);
    db.exec('commit');
    const hangs = Promise.withResolvers<void>();
    const zombie = first.take('orders', 1, async (due) => (await hangs.promise, due.map(() => ({ as: 'sent' }) as const)));
    await world.settle();
    const got: string[] = [];
    const all = async (due: readonly Outgoing[]) => (got.push(...due.map(textOf)), due.map(() => ({ as: 'left' }) as const));
    await world.advance(999);
    expect(await second.take('orders', 10, all)).toBe(0);
    await world.advance(1);
    expect(await second.take('orders', 10, all)).toBe(2);
    hangs.resolve();
    await expect(zombie).rejects.toMatchObject({ code: 'claim-lost' });
    expect(await second.take('orders', 10, all)).toBe(2);
    expect(got).toEqual(['1', '2', '1', '2']);
  });

  it('park nothing while the destination takes longer to fail than their leases: it is told to end before another relay takes over', async () => {
    const world = virtualWorld();
    const db = new DatabaseSync(':memory:');
    const options = { destinations: ['orders'], world, leaseMs: 1_000 } as const;
    const relayed = [sqliteOutbox(db, options), sqliteOutbox(db, options)];
    db.exec('begin');
    relayed[0]!.publish(db, 'orders', message('1', 'k'));
    db.exec('commit');
    let sends = 0;
    const slow: Destination = {
      send: (messages, signal) =>
        new Promise((resolve) => {
          const fail = () => (cancel(), sends++, resolve(messages.map(() => failed('no answer'))));
          const cancel = world.clock.after(1_500, fail);
          signal.addEventListener('abort', fail);
        }),
    };
    const stop = new AbortController();
    const errors: unknown[] = [];
    const onError = (error: unknown) => void errors.push((error as Error).message);
    const running = relayed.map((outbox) => relay({ outbox, to: { orders: slow }, world, maxAttempts: 2, onError }).run(stop.signal));
    await world.advance(300_000);
    expect(sends).toBeGreaterThan(6);
    expect(await relayed[0]!.stats()).toMatchObject([{ waiting: 1, parked: 0 }]);
    expect(new Set(errors)).toEqual(new Set(['no answer']));
    stop.abort();
    await world.advance(10_000);
    await Promise.all(running);
    expect(world.timers).toBe(0);
  });
});
