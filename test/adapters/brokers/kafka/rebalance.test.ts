import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';
import { Kafka, logLevel } from 'kafkajs';
import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { sqliteStore } from '../../../../adapters/stores/sqlite/index.ts';
import { createReceiver, header } from '../../../../src/index.ts';
import { proxiedKafka } from '../../../support/proxied-kafka.ts';
import { ownService } from '../../../support/services/index.ts';
import { latch } from '../../../support/stand.ts';
import { clientOf, ids, later, rig, until } from './rig.ts';

describe('a rebalance in the middle of a batch', () => {
  it('lets running handlers finish, commits what they did, begins nothing more, and nothing is handled twice', async () => {
    const place = await rig({ partitions: 2 });
    const store = memoryStore();
    const seen: string[] = [];
    const joining = latch();
    const receiver = (mark: string) =>
      createReceiver({ scope: 'test', key: header('message-id'), store, concurrency: 4, cacheSize: 0 }, async ({ id }: { id: string }) => {
        // On a busy machine the first would be done before the second has come.
        if (seen.length > 20) await joining.promise;
        await pause(20);
        seen.push(`${mark}:${id}`);
      });
    await place.produce(ids(400).map((id, i) => ({ id, key: `k${i % 40}`, partition: i % 2 })));
    const { errors, crashes } = await place.worker(receiver('a'), { maxInFlight: 20 });
    await until(() => seen.length > 20, 'the first consumer to be at work');
    const joinedAt = seen.length;
    await place.worker(receiver('b'), {
      maxInFlight: 20,
      start: (consumer, adapter) => {
        consumer.on('consumer.network.request', ({ payload }) => payload.apiName === 'JoinGroup' && joining.open());
        return consumer.run(adapter.run());
      },
    });
    await until(async () => (await place.committed(0)) === 200 && (await place.committed(1)) === 200, 'all to be committed');
    expect(seen.map((line) => line.slice(2)).toSorted()).toEqual(ids(400).toSorted());
    expect(seen.some((line) => line.startsWith('b:'))).toBe(true);
    // The first batch held 200 messages: the rebalance did not wait for all of them.
    expect(seen.findIndex((line) => line.startsWith('b:')) - joinedAt).toBeLessThan(200);
    expect(errors).toEqual([]);
    expect(crashes).toEqual([]);
  });

  it.each(['leased', 'transactional'])(
    'takes the signal of a %s handler that goes on past it, once somebody else has the partition',
    async (guarantee) => {
      const place = await rig();
      const db = new DatabaseSync(':memory:');
      db.exec('create table effects (id text)');
      const store = guarantee === 'leased' ? memoryStore() : sqliteStore(db);
      const reasons: unknown[] = [];
      const seen: string[] = [];
      let runs = 0;
      const handler = async ({ id }: { id: string }, { signal, ...context }: { signal: AbortSignal; tx?: DatabaseSync }) => {
        context.tx?.prepare('insert into effects values (?)').run(id);
        if (++runs > 1) return void seen.push(id);
        // In a transaction not even a handler that takes no notice commits.
        await new Promise<void>((resolve, reject) =>
          signal.addEventListener('abort', () => (context.tx ? resolve() : reject(signal.reason))),
        );
      };
      const on = { released: ({ reason }: { reason: string }) => void reasons.push(reason) };
      const worker = async () => {
        const options = { scope: 'test', key: header('message-id'), store, leaseMs: 600, backoff: { firstMs: 50 }, cacheSize: 0, on };
        // It goes on past the rebalance timeout, so the group goes on without it.
        await place.worker(createReceiver(options as never, handler as never), {
          consumer: { sessionTimeout: 1_500, rebalanceTimeout: 1_500 },
        });
      };
      await place.produce([{ id: 'a' }]);
      await worker();
      await until(() => runs === 1, 'the handler to run');
      await worker();
      await until(() => seen.length === 1, 'whoever has the partition then to handle it');
      await until(async () => (await place.committed()) === 1, 'it to be committed');
      // The other may have been refused meanwhile.
      expect(reasons).toContain('fenced');
      expect(seen).toEqual(['a']);
      expect(db.prepare('select count(*) as n from effects').get()).toEqual({ n: guarantee === 'leased' ? 0 : 1 });
    },
  );
});

describe('a broker', () => {
  it('that is stopped, killed and started again under load loses nothing and doubles nothing', async () => {
    const own = await ownService('kafka');
    later(() => own.stop());
    const place = await rig({ brokers: own.address.brokers });
    const seen: string[] = [];
    const receiver = createReceiver(
      { scope: 'test', key: header('message-id'), store: memoryStore(), backoff: { firstMs: 50 } },
      async ({ id }: { id: string }) => {
        await pause(10);
        seen.push(id);
      },
    );
    await place.produce(ids(2_000).map((id, i) => ({ id, key: `k${i % 50}` })));
    await place.worker(receiver, { client: clientOf(own.address.brokers, { retries: 50, maxRetryTime: 500 }) });
    await until(() => seen.length > 200, 'some messages');
    await own.pause();
    await pause(1_500);
    await own.resume();
    await until(() => seen.length > 600, 'more messages');
    await own.kill();
    await pause(500);
    await own.restart();
    await until(async () => (await place.committed().catch(() => 0)) === 2_000, 'all to be committed', 60_000);
    expect(seen.toSorted()).toEqual(ids(2_000).toSorted());
  }, 90_000);

  it('that takes a connection and does not answer is connected to again, though kafkajs gives its consumer up', async () => {
    const { server, proxy, url } = await proxiedKafka();
    later(() => server.stop());
    later(() => proxy.close());
    const brokers = [url];
    const place = await rig({ brokers });
    const seen: string[] = [];
    const receiver = createReceiver({ scope: 'test', key: header('message-id'), store: memoryStore() }, ({ id }: { id: string }) => {
      seen.push(id);
    });
    const client = new Kafka({
      brokers,
      logLevel: logLevel.NOTHING,
      connectionTimeout: 500,
      requestTimeout: 1_000,
      retry: { initialRetryTime: 50, maxRetryTime: 200, retries: 2 },
    });
    const { crashes, errors } = await place.worker(receiver, { client });
    await place.produce([{ id: 'a' }]);
    await until(() => seen.length === 1, 'the first message');
    // It has to be connecting anew when nothing is answered.
    proxy.cut();
    await until(() => errors.length > 0, 'kafkajs to have lost its connection');
    proxy.heal();
    proxy.freeze();
    await until(() => crashes.some(({ message }) => message === 'Broker not connected'), 'kafkajs to give the consumer up');
    proxy.heal();
    await place.produce([{ id: 'b' }]);
    await until(() => seen.length === 2, 'the second message', 60_000);
    expect(seen).toEqual(['a', 'b']);
  }, 90_000);
});
