import { describe, expect, it } from 'vitest';
import { type Delivered, type Destination, type Due, type Fate, type OutboxQueue, type RelayOptions, relay } from '../../src/index.ts';
import { virtualWorld } from '../../src/testing/virtual-world.ts';

const sent: Delivered = { state: 'sent' };
const failed: Delivered = { state: 'failed', error: new Error('down') };
const refused: Delivered = { state: 'refused', error: new Error('too long') };

const due = (id: string, failures = 0): Due => ({ id, orderingKey: undefined, body: Buffer.from(id), headers: {}, failures });

/** A relay to `orders`, on a queue that gives what `next` says, and notes when it was asked and what became of it. */
function stand(
  next: (limit: number) => readonly Due[] | Error,
  answer: Destination['send'],
  options: Partial<RelayOptions<'orders'>> = {},
) {
  const world = virtualWorld({ seed: 11 });
  const takes: { at: number; limit: number; fates: readonly Fate[] }[] = [];
  const outbox: OutboxQueue<'orders'> = {
    destinations: ['orders'],
    takesAtOnce: 1,
    async take(_name, limit, send) {
      const take = { at: world.clock.now(), limit, fates: [] as readonly Fate[] };
      takes.push(take);
      const messages = next(limit);
      if (messages instanceof Error) throw messages;
      take.fates = messages.length === 0 ? [] : await send(messages);
      return messages.length;
    },
  };
  const errors: unknown[] = [];
  const stop = new AbortController();
  const sending = relay({ outbox, to: { orders: { send: answer } }, world, onError: (error) => errors.push(error), ...options });
  return { world, takes, errors, stop, sending, gaps: () => takes.slice(1).map(({ at }, i) => at - takes[i]!.at) };
}

/** Expects each time to be what is written, less up to a half by chance, and chance to be at work. */
function expectLessByChance(times: readonly number[], most: readonly number[]): void {
  expect(times.length).toBe(most.length);
  for (const [i, ms] of times.entries()) {
    expect(ms, `time ${i}`).toBeLessThanOrEqual(most[i]!);
    expect(ms, `time ${i}`).toBeGreaterThanOrEqual(most[i]! / 2);
  }
  expect(new Set(times.map((ms, i) => ms / most[i]!)).size).toBeGreaterThan(1);
}

const doubling = (first: number, most: number, count: number) => Array.from({ length: count }, (_, i) => Math.min(most, first * 2 ** i));

describe('what a relay makes of the answers of a destination', () => {
  it('tells the outbox of each message what became of it', async () => {
    const batch = [due('a'), due('b', 3), due('c'), due('d', 9)];
    const batches = [batch];
    const { takes, sending, errors } = stand(
      () => batches.shift() ?? [],
      async () => [sent, refused, failed, refused],
      { maxAttempts: 10, backoff: { firstMs: 1_000, maxMs: 5_000 } },
    );
    await sending.drain();
    expect(takes[0]!.fates).toEqual([
      { as: 'sent' },
      { as: 'again', afterMs: expect.any(Number), counted: true },
      { as: 'left' },
      { as: 'parked', reason: 'Error: too long' },
    ]);
    expect(errors).toEqual([refused.error]);
  });

  it('waits longer after each failure of a message, up to `maxMs`', async () => {
    const batches = Array.from({ length: 12 }, (_, failures) => [due('bad', failures)]);
    const { takes, sending } = stand(
      () => batches.shift() ?? [],
      async () => [refused],
      { maxAttempts: 100, backoff: { firstMs: 1_000, maxMs: 60_000 } },
    );
    await sending.drain();
    const waits = takes.flatMap(({ fates }) => fates.map((fate) => (fate.as === 'again' ? fate.afterMs : Number.NaN)));
    expectLessByChance(waits, doubling(1_000, 60_000, 12));
  });

  it('goes on with a message that has failed a thousand times, where nothing says that it may not', async () => {
    const { takes, sending, stop } = stand(
      () => {
        if (takes.length === 3) stop.abort();
        return [due('a', 1_100)];
      },
      async () => [refused],
      { maxAttempts: Number.POSITIVE_INFINITY, backoff: { firstMs: 0 } },
    );
    await sending.run(stop.signal);
    expect(takes.map(({ fates }) => fates)).toEqual(Array(3).fill([{ as: 'again', afterMs: 0, counted: true }]));
  });

  it('takes an answer that has not one for each message for a failure of the destination', async () => {
    const { takes, errors, world, sending, stop } = stand(
      () => [due('a'), due('b')],
      async () => [sent],
    );
    const running = sending.run(stop.signal);
    await world.settle();
    expect(takes[0]!.fates).toEqual([{ as: 'left' }, { as: 'left' }]);
    expect(errors).toEqual([expect.objectContaining({ code: 'broker' })]);
    stop.abort();
    await running;
  });

  it('goes on at once when a message was refused, and those behind it were not sent for that', async () => {
    const batches = [[due('bad'), due('behind'), due('behind too')], [due('other')]];
    const { takes, sending } = stand(
      () => batches.shift() ?? [],
      async ([first]) => (first!.id === 'bad' ? [refused, failed, failed] : [sent]),
      { batchSize: 100 },
    );
    await sending.drain();
    expect(takes.map(({ at, limit }) => [at, limit])).toEqual([
      [0, 100],
      [0, 100],
      [0, 100],
    ]);
  });

  it('counts each refusal of a message that is alone: that others get through need not be known', async () => {
    const batches = [0, 1, 2].map((failures) => [due('bad', failures)]);
    const { takes, sending } = stand(
      () => batches.shift() ?? [],
      async () => [refused],
      { maxAttempts: 3 },
    );
    await sending.drain();
    expect(takes.map(({ fates }) => fates[0]?.as)).toEqual(['again', 'again', 'parked', undefined]);
  });

  it('is not asked for a message whose tries are used up: those who tried it have died', async () => {
    const batches = [[due('last try', 4)], [due('bad', 5)], [due('worse', 6)]];
    const got: string[] = [];
    const { takes, sending, errors } = stand(
      () => batches.shift() ?? [],
      async (messages) => (got.push(...messages.map(({ id }) => id)), messages.map(() => sent)),
      { maxAttempts: 3 },
    );
    await sending.drain();
    expect(got).toEqual(['last try']);
    expect(takes.map(({ fates }) => fates[0])).toEqual([
      { as: 'sent' },
      { as: 'parked', reason: 'Tried 5 times; who tried it died, or lost the database' },
      { as: 'parked', reason: 'Tried 6 times; who tried it died, or lost the database' },
      undefined,
    ]);
    expect(errors).toMatchObject([
      { code: 'parked', message: 'Message bad was given up: Tried 5 times; who tried it died, or lost the database' },
      { code: 'parked', message: 'Message worse was given up: Tried 6 times; who tried it died, or lost the database' },
    ]);
  });
});

describe('a relay whose destination is down', () => {
  it('halves its batches until one message is alone, after pauses that double up to 30 seconds', async () => {
    const { takes, gaps, world, sending, stop } = stand(
      (limit) => Array.from({ length: limit }, (_, i) => due(String(i))),
      async (messages) => messages.map(() => failed),
      { batchSize: 4_096 },
    );
    const running = sending.run(stop.signal);
    await world.advance(200_000);
    expect(takes.slice(0, 13).map(({ limit }) => limit)).toEqual(doubling(1, 4_096, 13).reverse());
    expectLessByChance(gaps().slice(0, 12), doubling(100, 30_000, 12));
    expect(takes[11]!.fates).toEqual([{ as: 'left' }, { as: 'left' }]);
    stop.abort();
    await running;
  });

  it.each([
    ['are started anew again and again', false],
    ['are many, and each of them has sent others before', true],
  ])('counts no failure of a message, nor do others that %s', async (_, sentBefore) => {
    const fates: Fate[] = [];
    for (let each = 0; each < 5; each++) {
      const before = sentBefore ? [[due('before')]] : [];
      const { takes, world, sending, stop } = stand(
        () => before.shift() ?? [due('1')],
        async ([first]) => [first!.id === 'before' ? sent : failed],
        { maxAttempts: 3 },
      );
      const running = sending.run(stop.signal);
      await world.advance(10_000);
      stop.abort();
      await running;
      fates.push(...takes.flatMap((take) => take.fates));
    }
    const failures = fates.filter(({ as }) => as !== 'sent');
    expect(failures.length).toBeGreaterThan(20);
    expect(failures).toEqual(failures.map(() => ({ as: 'again', afterMs: expect.any(Number), counted: false })));
  });

  it('comes back to whole batches by doubling them when it is up', async () => {
    let sends = 0;
    const { takes, world, sending, stop } = stand(
      (limit) => (takes.length > 10 ? [] : Array.from({ length: limit }, (_, i) => due(String(i)))),
      async (messages) => (sends++ < 4 ? messages.map(() => failed) : messages.map(() => sent)),
      { batchSize: 10 },
    );
    const running = sending.run(stop.signal);
    await world.advance(10_000);
    expect(takes.slice(0, 10).map(({ limit }) => limit)).toEqual([10, 5, 2, 1, 1, 2, 4, 8, 10, 10]);
    stop.abort();
    await running;
  });
});

describe('messages that fail although the destination is up', () => {
  it('are counted from their second failure on, when others were sent in between', async () => {
    const failures = new Map([
      ['bad', 0],
      ['worse', 0],
    ]);
    const fates = new Map<string, string[]>([
      ['bad', []],
      ['worse', []],
    ]);
    const order = ['bad', 'good', 'worse', 'good', 'bad', 'bad', 'good', 'worse', 'good', 'bad', 'good', 'bad', 'worse', 'good', 'worse'];
    const { takes, world, sending, stop } = stand(
      () => order.slice(takes.length - 1, takes.length).map((id) => due(id, failures.get(id))),
      async ([first]) => [first!.id === 'good' ? sent : failed],
      { maxAttempts: 3 },
    );
    const running = sending.run(stop.signal);
    for (let done = 0; done < order.length; ) {
      await world.advance(1);
      for (; done < order.length && takes[done]?.fates.length; done++) {
        const [id, fate] = [order[done]!, takes[done]!.fates[0]!];
        const counted = fate.as === 'parked' || (fate.as === 'again' && fate.counted);
        if (counted) failures.set(id, failures.get(id)! + 1);
        fates.get(id)?.push(`${fate.as}${counted ? ' counted' : ''}`);
      }
    }
    expect(fates.get('bad')).toEqual(['again', 'again counted', 'again', 'again counted', 'parked counted']);
    expect(fates.get('worse')).toEqual(['again', 'again counted', 'again counted', 'parked counted']);
    stop.abort();
    await running;
  });
});

describe('a relay whose outbox is down', () => {
  it('asks again after pauses that double up to 30 seconds, and at its usual pace when it is up', async () => {
    let up = false;
    const { gaps, takes, errors, world, sending, stop } = stand(
      () => (up ? [] : new Error('no database')),
      async () => [],
      { pollMs: 500 },
    );
    const running = sending.run(stop.signal);
    await world.advance(200_000);
    const pauses = gaps();
    expect(pauses.length).toBeGreaterThan(11);
    expectLessByChance(pauses, doubling(100, 30_000, pauses.length));
    expect(errors).toHaveLength(takes.length);
    up = true;
    await world.advance(32_000);
    expect(gaps().slice(-2)).toEqual([500, 500]);
    stop.abort();
    await running;
  });
});
