import { expect, it } from 'vitest';
import { RetryAfter } from '../../../../src/index.ts';
import { ids } from './rig.ts';
import { virtual } from './virtual.ts';

// kafkajs calls the user's logger when it pauses a partition.
it('a logger of the user’s that throws reaches nobody but `onError`, and the partition goes on', async () => {
  const { model, world, worker, committed } = virtual();
  const rejections: unknown[] = [];
  const heard = (error: unknown) => void rejections.push(error);
  process.on('unhandledRejection', heard);
  const seen: string[] = [];
  const { consumer, errors } = await worker(
    ({ id }, { attempt }) => {
      seen.push(id);
      if (id === 'm0' && attempt === 1) throw new RetryAfter(5_000);
    },
    {
      kafka: { window: 3 },
      start: async (to, adapter) => {
        const { eachBatch, ...config } = adapter.run();
        const pause = () => {
          throw new TypeError('logger');
        };
        await to.run({ ...config, eachBatch: (payload) => eachBatch({ ...payload, pause }) });
      },
    },
  );
  model.produce(
    't',
    ids(5).map((id) => ({ id })),
  );
  await world.advance(30_000);
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', heard);
  expect(rejections).toEqual([]);
  expect(new Set(errors.map(({ error }) => error.message))).toEqual(new Set(['logger']));
  expect(consumer.crashes).toEqual([]);
  expect(committed()).toBe(5);
});
