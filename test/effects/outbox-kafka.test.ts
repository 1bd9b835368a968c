import { setTimeout as pause } from 'node:timers/promises';
import { Partitioners } from 'kafkajs';
import { beforeAll, describe, expect, it } from 'vitest';
import { type KafkaDestinationOptions, kafkaDestination } from '../../adapters/brokers/kafka/index.ts';
import { partitionOf } from '../../adapters/brokers/kafka/partitioner.ts';
import type { Delivered, Destination, Outgoing } from '../../src/index.ts';
import { api, faultProxy } from '../adapters/stores/kafka-transactions/proxy.ts';
import { later } from '../adapters/stores/kafka-transactions/rig.ts';
import { clientOf, readCommitted } from '../adapters/stores/kafka-transactions/rig-base.ts';
import { service } from '../support/services/index.ts';
import { unique } from '../support/unique.ts';

let brokers: readonly string[];
beforeAll(async () => {
  ({ brokers } = await service('kafka'));
});

const never = new AbortController().signal;
const partitions = 3;

async function newTopic(): Promise<string> {
  const topic = unique('outbox');
  const admin = clientOf(brokers).admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: partitions }], waitForLeaders: true });
  await admin.disconnect();
  return topic;
}

function outgoing(id: string, more: Partial<Omit<Outgoing, 'id'>> = {}): Outgoing {
  return { id, orderingKey: undefined, body: Buffer.from(id), headers: {}, ...more };
}

const batch = (name: string, count: number, orderingKey?: string) =>
  Array.from({ length: count }, (_, i) => outgoing(`${name}${i}`, { orderingKey }));

async function destinationOf(topic: string, options: KafkaDestinationOptions = {}, client: object = {}): Promise<Destination> {
  const destination = kafkaDestination(clientOf(brokers, client), topic, options);
  later(() => destination.close!());
  return destination;
}

const states = (results: readonly Delivered[]) => results.map(({ state }) => state);
const read = (topic: string) => readCommitted(clientOf(brokers), topic, partitions);

describe('a Kafka topic as a destination', () => {
  it('gets key, value, headers and id; messages with one ordering key in one partition, in order', async () => {
    const topic = await newTopic();
    const destination = await destinationOf(topic);
    const all = [
      outgoing('a', { orderingKey: 'schlüssel', headers: { kind: 'charge', 'message-id': 'not mine' } }),
      outgoing('b', { orderingKey: 'other' }),
      outgoing('c', { orderingKey: 'schlüssel' }),
      outgoing('d'),
    ];
    expect(states(await destination.send(all, never))).toEqual(['sent', 'sent', 'sent', 'sent']);
    expect(states(await destination.send([outgoing('e', { orderingKey: 'schlüssel' })], never))).toEqual(['sent']);
    const records = await read(topic);
    const of = (key: string | undefined) =>
      records.filter((record) => record.key === key).map(({ value, headers }) => [value, headers['message-id']]);
    expect(of('schlüssel')).toEqual(['a', 'c', 'e'].map((id) => [id, id]));
    expect(of('other')).toEqual([['b', 'b']]);
    expect(of(undefined)).toEqual([['d', 'd']]);
    expect(records.find(({ value }) => value === 'a')!.headers).toEqual({ kind: 'charge', 'message-id': 'a' });
    expect(await destination.send([], never)).toEqual([]);
  });

  it('sends a body of nothing as a tombstone', async () => {
    const topic = await newTopic();
    const destination = await destinationOf(topic, { idHeader: 'x-id' });
    expect(states(await destination.send([outgoing('gone', { orderingKey: 'k', body: null })], never))).toEqual(['sent']);
    expect(await read(topic)).toMatchObject([{ key: 'k', value: '', headers: { 'x-id': 'gone' } }]);
  });

  it('chooses the partition of a key as kafkajs and Java clients do', () => {
    const theirs = Partitioners.DefaultPartitioner();
    for (let i = 0; i < 2_000; i++) {
      const key = Buffer.from('é€x'.repeat(i % 9) + i.toString(36).repeat(i % 4));
      for (const count of [1, 3, 12]) {
        const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({ partitionId, leader: 1 }));
        // kafkajs spreads empty keys; a key is never empty here.
        if (key.length > 0) {
          const expected = theirs({ topic: 't', partitionMetadata: partitionMetadata as never, message: { key, value: null } });
          expect(partitionOf(key, count), String(key)).toBe(expected);
        }
      }
    }
  });

  it('asks the partitioner that it was given', async () => {
    const topic = await newTopic();
    const destination = await destinationOf(topic, { createPartitioner: () => () => 2 });
    await destination.send(batch('x', 3, 'k'), never);
    expect((await read(topic)).map(({ partition }) => partition)).toEqual([2, 2, 2]);
  });

  it('writes once what it sends again because the answer was lost', async () => {
    const proxy = await faultProxy();
    const topic = await newTopic();
    const destination = await destinationOf(topic, {}, { socketFactory: proxy.socketFactory });
    await destination.send(batch('before', 1, 'k'), never);
    proxy.strike({ api: api.produce, lost: 'reply' });
    expect(new Set(states(await destination.send(batch('x', 5, 'k'), never)))).toEqual(new Set(['sent']));
    expect(proxy.struck()).toBe(1);
    expect((await read(topic)).map(({ value }) => value)).toEqual(['before0', 'x0', 'x1', 'x2', 'x3', 'x4']);
  });

  // kafkajs takes the sequence numbers of a failed send back. The broker has them: it takes the next batch for the copy of that one.
  it('does not lose the batch after one whose answers were all lost, as a kafkajs producer that is used again does', async () => {
    const proxy = await faultProxy();
    const [topic, naiveTopic] = [await newTopic(), await newTopic()];
    const client = { socketFactory: proxy.socketFactory };

    const naive = clientOf(brokers, client).producer({
      idempotent: true,
      maxInFlightRequests: 1,
      retry: { retries: 1, initialRetryTime: 10 },
    });
    await naive.connect();
    later(() => naive.disconnect());
    const record = (text: string) => ({ topic: naiveTopic, messages: [{ key: 'k', value: text }] });
    await naive.send(record('0'));
    proxy.strike({ api: api.produce, lost: 'reply', times: 2 });
    await expect(naive.send(record('1'))).rejects.toThrow();
    await naive.send(record('2'));
    expect((await read(naiveTopic)).map(({ value }) => value)).toEqual(['0', '1']);

    const destination = await destinationOf(topic, {}, client);
    await destination.send(batch('before', 1, 'k'), never);
    proxy.strike({ api: api.produce, lost: 'reply', times: 9 });
    expect(states(await destination.send(batch('x', 2, 'k'), never))).toEqual(['failed', 'failed']);
    expect(states(await destination.send(batch('y', 2, 'k'), never))).toEqual(['sent', 'sent']);
    expect((await read(topic)).map(({ value }) => value)).toEqual(['before0', 'x0', 'x1', 'y0', 'y1']);
  }, 60_000);

  it('refuses a message that is too long, and sends what is not behind it', async () => {
    const topic = await newTopic();
    const destination = await destinationOf(topic, { maxMessageBytes: 1_000 });
    const long = outgoing('long', { orderingKey: 'k', body: Buffer.alloc(1_000) });
    const results = await destination.send(
      [outgoing('1', { orderingKey: 'k' }), long, outgoing('2', { orderingKey: 'k' }), outgoing('3', { orderingKey: 'l' })],
      never,
    );
    expect(states(results)).toEqual(['sent', 'refused', 'failed', 'sent']);
    expect(results[1]).toMatchObject({ error: { message: expect.stringContaining('at most 1000 bytes') } });
    expect((await read(topic)).map(({ value }) => value).toSorted()).toEqual(['1', '3']);
  });

  it('does not know what has become of messages that the broker refuses, and goes on with the next ones', async () => {
    const topic = await newTopic();
    const destination = await destinationOf(topic, { maxMessageBytes: 10_000_000 });
    const long = outgoing('long', { body: Buffer.alloc(3_000_000, 'x') });
    expect(states(await destination.send([outgoing('1'), long], never))).toEqual(['failed', 'failed']);
    expect(states(await destination.send([outgoing('2')], never))).toEqual(['sent']);
    expect((await read(topic)).map(({ value }) => value)).toContain('2');
  });

  it('fails for a topic that does not exist', async () => {
    const destination = await destinationOf(unique('missing'), { sendTimeoutMs: 2_000 });
    expect(states(await destination.send(batch('x', 1), never))).toEqual(['failed']);
  });

  it('fails when the broker does not answer in time, and sends again when it does; nothing is sent late by the producer that was given up', async () => {
    const proxy = await faultProxy();
    const topic = await newTopic();
    const destination = await destinationOf(topic, { sendTimeoutMs: 400 }, { socketFactory: proxy.socketFactory });
    await destination.send(batch('before', 1, 'k'), never);
    proxy.strike({ api: api.produce, lost: 'request', times: 4 });
    expect(states(await destination.send(batch('x', 2, 'k'), never))).toEqual(['failed', 'failed']);
    expect(states(await destination.send(batch('y', 2, 'k'), never))).toEqual(['sent', 'sent']);
    // Long enough for the tries that kafkajs has left.
    await pause(3_000);
    expect((await read(topic)).map(({ value }) => value)).toEqual(['before0', 'y0', 'y1']);
  });

  it('ends soon when the relay stops while the broker hangs', async () => {
    const proxy = await faultProxy();
    const topic = await newTopic();
    const destination = await destinationOf(topic, {}, { socketFactory: proxy.socketFactory });
    await destination.send(batch('before', 1, 'k'), never);
    proxy.strike({ api: api.produce, lost: 'hold', ms: 5_000 });
    const stop = new AbortController();
    const sending = destination.send(batch('x', 1, 'k'), stop.signal);
    stop.abort();
    expect(await sending).toMatchObject([{ state: 'failed', error: { code: 'stopped' } }]);
    await destination.close!();
  });

  it('sends one batch after another, whoever asks', async () => {
    const topic = await newTopic();
    const destination = await destinationOf(topic);
    await Promise.all(Array.from({ length: 20 }, (_, i) => destination.send(batch(`${i}-`, 10, 'k'), never)));
    expect((await read(topic)).map(({ value }) => value)).toEqual(Array.from({ length: 200 }, (_, i) => `${Math.floor(i / 10)}-${i % 10}`));
  });

  it.each<[string, unknown[], RegExp]>([
    ['no client', [{}, 't'], /`kafka` to be/],
    ['no topic', [{ producer: () => {} }, ''], /`topic` to be/],
    ['a limit that is none', [{ producer: () => {} }, 't', { maxMessageBytes: 1 }], /`maxMessageBytes`/],
    ['no time', [{ producer: () => {} }, 't', { sendTimeoutMs: 0 }], /`sendTimeoutMs`/],
  ])('is not made with %s', (_, args, complaint) => {
    expect(() => kafkaDestination(...(args as Parameters<typeof kafkaDestination>))).toThrow(complaint);
  });
});
