import { expect, it } from 'vitest';
import { RetryAfter } from '../../../../src/index.ts';
import { latch } from '../../../support/stand.ts';
import { ids } from './rig.ts';
import { virtual } from './virtual.ts';

const messages = (count: number, key?: string) => ids(count).map((id) => (key === undefined ? { id } : { id, key }));

it('eachMessage: a rebalance does not move the consumer past a message that waits for its next try', async () => {
  const { model, world, worker, committed } = virtual();
  const seen: string[] = [];
  const open = latch();
  const { consumer } = await worker(
    async ({ id }, { attempt }) => {
      seen.push(`${id} ${attempt}`);
      if (id === 'm0' && attempt === 1) throw new RetryAfter(60_000);
      if (id === 'm3' && attempt === 1) await open.promise;
    },
    { start: (to, adapter) => to.run({ autoCommit: false, eachMessage: adapter.eachMessage }) },
  );
  model.produce('t', messages(6));
  await world.advance(1_000);
  model.group('g').rebalance();
  await world.advance(10_000);
  open.open();
  await world.advance(200_000);
  expect(consumer.crashes).toEqual([]);
  expect(seen).toContain('m0 2');
  expect(committed()).toBe(6);
});

it('a consumer that did not come back in time is moved to no place beyond what waits for its next try', async () => {
  const { model, world, worker, committed } = virtual();
  const seen: string[] = [];
  const { consumer, errors } = await worker(
    ({ id }, { attempt }) => {
      seen.push(`${id} ${attempt}`);
      if (id === 'm0' && attempt === 1) throw new RetryAfter(60_000);
    },
    { consumer: { maxBatch: 3, rebalanceTimeout: 300_000 } },
  );
  model.produce('t', messages(6));
  await world.advance(1_000);
  expect(seen).toHaveLength(6);
  const joining = latch();
  consumer.intercept = async (name) => {
    if (name === 'JoinGroup') await joining.promise;
  };
  model.group('g').rebalance();
  await world.advance(140_000);
  joining.open();
  expect(errors.map(({ error }) => error.message)).toContain('The consumer has lost its membership and does not join its group again');
  await world.advance(200_000);
  expect(consumer.crashes).toEqual([]);
  expect(seen).toContain('m0 2');
  expect(committed()).toBe(6);
});

it('a consumer that is out of its group and has nothing new to read is made to read something old, and so to join again', async () => {
  const { model, world, worker } = virtual({ partitions: 2 });
  const seen: string[] = [];
  const handler = ({ id }: { id: string }, { attempt }: { attempt: number }) => {
    if (attempt === 1 && id === 'm0') throw new RetryAfter(20_000);
    seen.push(id);
  };
  const { consumer } = await worker(handler);
  const second = await worker(handler);
  await world.advance(20_000);
  model.produce('t', messages(1));
  await world.advance(1_000);
  let breaks = 1;
  consumer.intercept = async (name) => {
    if (name === 'JoinGroup' && breaks-- > 0) throw Object.assign(new Error('Connection error'), { retriable: true });
  };
  model.group('g').expel('member-1');
  await world.advance(30_000);
  const stopped = second.consumer.disconnect();
  await world.advance(10_000);
  await stopped;
  expect([breaks, model.group('g').members()]).toEqual([0, []]);
  model.produce('t', [{ id: 'other', partition: 1 }]);
  await world.advance(200_000);
  expect(seen).toContain('other');
});

// kafkajs fetches from each broker by itself. When one of them is not the leader any more it joins anew, while batches of the others are still being handed out.
it.each(['eachBatch', 'eachMessage'] as const)(
  '%s: what was fetched before the group was joined anew moves nobody past a message that waits for its next try',
  async (each) => {
    const { model, world, worker, committed } = virtual({ partitions: 2 });
    const seen: string[] = [];
    const open = latch();
    let broken = true;
    const { consumer } = await worker(
      async ({ id }) => {
        seen.push(id);
        if (id === 'waits' && broken) throw new RetryAfter(60_000);
        if (id === 'slow') await open.promise;
      },
      { start: (to, adapter) => to.run({ autoCommit: false, eachBatchAutoResolve: false, [each]: adapter[each] }) },
    );
    const one = (id: string, partition: number) => ({ id, partition });
    model.produce('t', [one('waits', 1)]);
    await world.advance(10_000);
    expect(seen).toEqual(['waits']);
    model.produce('t', [one('slow', 0), one('after', 1)]);
    await world.advance(1_000);
    expect(seen).toEqual(['waits', 'slow']);
    // It does so again as long as the metadata are out of date.
    for (let times = 0; times < 2; times++) {
      const joined = consumer.rejoin();
      await world.advance(1_000);
      await joined;
    }
    open.open();
    await world.advance(10_000);
    expect(committed(1)).toBe(0);
    broken = false;
    await world.advance(120_000);
    expect(seen.filter((id) => id === 'waits').length).toBeGreaterThan(1);
    expect([committed(0), committed(1)]).toEqual([1, 2]);
    expect(consumer.crashes).toEqual([]);
  },
);
