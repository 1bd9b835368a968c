import { describe, expect, it } from 'vitest';
import type { Message } from '../../src/index.ts';
import { faults } from '../../src/testing/prove/faults.ts';
import type { Worker } from '../../src/testing/prove/place.ts';
import { Queue } from '../../src/testing/prove/queue.ts';
import { run } from '../../src/testing/prove/run.ts';
import { Kernel } from '../../src/testing/virtual/kernel.ts';

const messages: Message[] = [{ id: 'm', body: { id: 'order-1' }, headers: {} }];

describe('a run', () => {
  it('hears nothing more of a process that was killed, and replaces it', async () => {
    const both: Worker =
      ({ effect, database }) =>
      async () => {
        await Promise.all([effect('charge', 'it', { key: 'it' }), effect('mail', 'it', { key: 'it' }), database.set('seen', true)]);
      };
    const { story, ended } = await run(both, messages, [{ step: 0, kind: 'killed before' }]);
    expect(story).toEqual([
      'Process A receives m',
      'Process A is killed before it can charge it',
      'Process B receives m again',
      'Process B does charge it',
      'Process B does mail it',
      'Process B acknowledges m',
    ]);
    expect(ended).toBe(true);
  });

  it('is the same each time, to the last line', async () => {
    const worker: Worker =
      ({ effect }) =>
      () =>
        effect('charge', 'it');
    for (const kind of faults) {
      const [one, two] = [await run(worker, messages, [{ step: 0, kind }]), await run(worker, messages, [{ step: 0, kind }])];
      expect(one.story).toEqual(two.story);
      expect(one.faults).toBe(1);
    }
  });

  it('wakes up a process that stood still, and its request arrives late', async () => {
    const worker: Worker =
      ({ effect }) =>
      () =>
        effect('charge', 'it');
    const { story } = await run(worker, messages, [{ step: 0, kind: 'stands still before' }]);
    expect(story).toEqual([
      'Process A receives m',
      'Process A stands still for so long, before it can charge it, that others take over',
      'Process B receives m again',
      'Process B does charge it',
      'Process B acknowledges m',
      'Process A does charge it',
      'Process A acknowledges m',
    ]);
  });

  it('hands each delivery over as the broker keeps it, whatever a handler does to it', async () => {
    const seen: unknown[] = [];
    const worker: Worker =
      ({ effect }) =>
      async (message) => {
        const order = message.body as { id: string };
        seen.push(order.id);
        order.id = 'changed';
        await effect('charge', 'it');
      };
    await run(worker, messages, [{ step: 0, kind: 'request lost' }]);
    expect(seen).toEqual(['order-1', 'order-1']);
  });
});

describe('the queue', () => {
  it('takes a message back only from whom it was last handed to', async () => {
    const kernel = new Kernel();
    const queue = new Queue(kernel, messages, () => {});
    const [first] = queue.receive();
    await kernel.run(() => false, 10 * 60_000);
    const [second] = queue.receive();
    expect(second!.receipt).toBe(2);
    queue.retry(first!, 0);
    expect(queue.entries[0]!.hiddenUntil).toBeGreaterThan(kernel.now);
    queue.retry(second!, 0);
    expect(queue.entries[0]!.hiddenUntil).toBe(kernel.now);
  });
});
