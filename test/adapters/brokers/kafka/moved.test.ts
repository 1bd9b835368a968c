import { describe, expect, it } from 'vitest';
import { RetryAfter } from '../../../../src/index.ts';
import { latch } from '../../../support/stand.ts';
import { ids } from './rig.ts';
import { virtual } from './virtual.ts';

const messages = (count: number, from = 0) => ids(count, from).map((id) => ({ id }));

// Measured on Kafka 4.3: nobody joins anew, and no event tells.
describe('a topic that is made again, or that has lost its end, while it is read', () => {
  it('is read from where kafkajs goes on, and none of its new messages is taken for one that was done', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    const open = latch();
    const { consumer, errors } = await worker(async ({ id }) => {
      seen.push(id);
      if (id === 'm9') await open.promise;
    });
    model.produce('t', messages(10));
    await world.advance(1_000);
    model.recreateTopic('t');
    model.produce('t', messages(5, 100));
    open.open();
    await world.advance(10_000);
    expect(seen).toEqual([...ids(10), ...ids(5, 100)]);
    expect(committed()).toBe(5);
    expect(consumer.log.filter(({ name }) => name === 'JoinGroup')).toHaveLength(1);
    expect(errors.map(({ error }) => error.message)).toEqual([expect.stringContaining('was the topic made again?')]);
  });
});

describe('a consumer that is moved back', () => {
  it('reads again from the first message that is not done, if that is before where it was moved to', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    let broken = true;
    const { consumer } = await worker(({ id }) => {
      seen.push(id);
      if (id === 'm2' && broken) throw new RetryAfter(60_000);
    });
    model.produce('t', messages(10));
    await world.advance(1_000);
    expect(committed()).toBe(2);
    broken = false;
    consumer.seek({ topic: 't', partition: 0, offset: '6' });
    await world.advance(10_000);
    expect(committed()).toBe(10);
    expect(seen).toEqual([...ids(10), 'm2']);
  });
});
