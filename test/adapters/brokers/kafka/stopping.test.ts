import { describe, expect, it } from 'vitest';
import { RetryAfter } from '../../../../src/index.ts';
import { ids } from './rig.ts';
import { virtual } from './virtual.ts';

const messages = (count: number, from = 0) => ids(count, from).map((id) => ({ id }));

describe('a consumer that its user stops, and does not disconnect', () => {
  it('holds no claim and no timer afterwards, and handles what waited when it is run again', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    const { consumer, adapter, errors } = await worker(({ id }, { attempt }) => {
      seen.push(`${id} ${attempt}`);
      if (id === 'm0' && attempt === 1) throw new RetryAfter(30_000);
    });
    model.produce('t', messages(3));
    await world.advance(1_000);
    expect(seen).toEqual(['m0 1', 'm1 1', 'm2 1']);
    const stopped = consumer.stop();
    await world.advance(6_000);
    await stopped;
    expect(world.timers).toBe(0);
    await world.advance(200_000);
    expect([seen.length, committed()]).toEqual([3, 0]);
    await consumer.run(adapter.run());
    await world.advance(10_000);
    expect(seen).toEqual(['m0 1', 'm1 1', 'm2 1', 'm0 2']);
    expect([committed(), errors]).toEqual([3, []]);
  });
});

describe('stop', () => {
  it('commits what is done also where handlers are given no time', async () => {
    const { model, world, worker, committed } = virtual();
    const { adapter, consumer } = await worker(() => {});
    await world.advance(1_000);
    consumer.intercept = async (name) => {
      if (name === 'OffsetCommit') await new Promise<void>((resolve) => void world.clock.after(200, resolve));
    };
    model.produce('t', messages(3));
    await world.advance(250);
    expect(committed()).toBe(0);
    const stopped = adapter.stop({ graceMs: 0 });
    await world.advance(1_000);
    expect([await stopped, committed()]).toEqual([{ abandoned: 0 }, 3]);
  });

  it.each([true, false])(
    'ends within its grace and ten seconds, though no handler does and Kafka does not answer: stopReceiver %s',
    async (stopReceiver) => {
      const { model, world, worker } = virtual();
      const { adapter, consumer, receiver } = await worker(({ id }) => (id === 'm2' ? new Promise(() => {}) : undefined), {
        kafka: { stopReceiver },
      });
      model.produce('t', messages(3));
      await world.advance(20);
      consumer.intercept = async (name) => {
        if (name === 'OffsetCommit') await new Promise(() => {});
      };
      const startedAt = world.clock.now();
      let endedAt = Number.POSITIVE_INFINITY;
      void adapter.stop({ graceMs: 60_000 }).then(() => {
        endedAt = world.clock.now();
      });
      await world.advance(200_000);
      expect(endedAt - startedAt).toBeLessThanOrEqual(70_000);
      void receiver.stop({ graceMs: 0 });
    },
  );
});
