import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../adapters/stores/memory.ts';
import { RetryAfter, type StepsRun, steps, TerminalError } from '../../src/index.ts';
import { virtualWorld } from '../../src/testing/virtual-world.ts';
import { latch, watch } from '../support/stand.ts';
import { effects, failing } from './stand.ts';

const code = (expected: string) => expect.objectContaining({ name: 'ReceiverError', code: expected });

function stand(options: Record<string, unknown> = {}) {
  const world = virtualWorld();
  const store = memoryStore({ now: world.clock.now });
  return { world, store, orders: steps({ store, scope: 'fulfil', world, ...options }) };
}

describe('steps without a receiver', () => {
  it('run once for an id: whoever runs it later gets the first result', async () => {
    const { done, now } = effects();
    const { orders } = stand();
    const body = (run: StepsRun) => run.step('charge', () => now('charge'));
    expect(await orders.run('order 7', body)).toBe('receipt 1 for charge');
    expect(await orders.run('order 7', body)).toBe('receipt 1 for charge');
    expect(await orders.run(['order', '8'], body)).toBe('receipt 2 for charge');
    expect(done).toHaveLength(2);
  });

  it('go on where they were, when they are run again after a failure', async () => {
    const { done, now } = effects();
    const { orders } = stand();
    const fail = failing(2, () => new RetryAfter(77));
    const run = () =>
      orders.run('order 7', async (ctx) => {
        await ctx.step('charge', () => now('charge'));
        fail();
        return [ctx.attempt, await ctx.step('mail', () => now('mail'))];
      });
    // The worker's own queue decides when to come back, and is told what is known of it.
    await expect(run()).rejects.toMatchObject({ name: 'RetryAfter', afterMs: 77 });
    await expect(run()).rejects.toMatchObject({ name: 'RetryAfter' });
    expect(await run()).toEqual([3, 'receipt 2 for mail']);
    expect(done).toEqual(['charge', 'mail']);
  });

  it('are parked by a final error', async () => {
    const { orders } = stand();
    const run = () => orders.run('order 7', () => Promise.reject(new TerminalError('no such product')));
    await expect(run()).rejects.toThrow(new TerminalError('no such product'));
    await expect(run()).rejects.toEqual(code('parked'));
  });

  it('wait for another run of the same id, and then get its result', async () => {
    const { world, store, orders } = stand();
    const other = steps({ store, scope: 'fulfil', world, waitMs: 0 });
    const open = latch<string>();
    const first = orders.run('order 7', (run) => run.step('charge', () => open.promise));
    await world.settle();
    await expect(other.run('order 7', () => 'not run')).rejects.toEqual(code('busy'));
    const waiting = watch(stand({ store, world }).orders.run('order 7', () => 'not run'));
    open.open('done');
    await world.advance(2_000);
    expect([await first, waiting.value]).toEqual(['done', 'done']);
  });

  it('give all that a handler has, but for the message', async () => {
    const { orders } = stand();
    const names = await orders.run('order 7', async (run) => {
      const saga = await run.saga('trip', ({ step }) => step('hotel', () => 'booked'));
      return [saga, typeof (await run.now()), run.uuid('a').length, run.attempt, typeof run.fence, run.signal.aborted, run.key('a').length];
    });
    expect(names).toEqual(['booked', 'number', 36, 1, 'number', false, 32]);
  });

  it('are not run inside themselves', async () => {
    const { orders } = stand();
    await expect(orders.run('order 7', () => orders.run('order 7', () => 1))).rejects.toEqual(code('nested'));
    expect(await orders.run('order 8', () => orders.run('order 9', () => 1))).toBe(1);
  });

  it('can be stopped', async () => {
    const { orders } = stand();
    await orders.stop();
    await expect(orders.run('order 7', () => 1)).rejects.toEqual(code('stopped'));
  });

  it.each([
    ['options', undefined, 'Expected `options` to be an object, got'],
    ['options that are not null', null, 'Expected `options` to be an object, got'],
    ['a store', { scope: 'x' }, 'Expected `store` to be a store that is a Journal, got'],
    ['a store that is not null', { scope: 'x', store: null }, 'Expected `store` to be a store that is a Journal, got'],
    ['a store that writes entries', { scope: 'x', store: { ...memoryStore(), writeEntries: undefined } }, 'a store that is a Journal'],
    ['a store that reads entries', { scope: 'x', store: { ...memoryStore(), readEntries: undefined } }, 'a store that is a Journal'],
    ['a scope', { store: memoryStore() }, 'scope'],
    ['a list of retired steps', { scope: 'x', store: memoryStore(), retiredSteps: 'charge' }, '`retiredSteps` to be a list of names, got'],
    ['names of retired steps', { scope: 'x', store: memoryStore(), retiredSteps: [7] }, '`retiredSteps` to be a list of names, got'],
  ])('need %s', (_, options, message) => {
    expect(() => steps(options as never)).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining(message) }),
    );
  });

  it('need a function', async () => {
    await expect(stand().orders.run('order 7', 'charge' as never)).rejects.toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining('Expected `body` to be a function, got') }),
    );
  });
});
