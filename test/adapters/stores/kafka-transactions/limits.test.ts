import { describe, expect, it } from 'vitest';
import { type KafkaTransactionsOptions, kafkaTransactions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import type { AnyHandler } from '../../../../src/handler.ts';
import { TerminalError } from '../../../../src/index.ts';
import { actions } from '../../../support/stand.ts';
import { deliveries, rig, valuesOf } from './rig.ts';

const of = (topic: string, partition = 0) => ({ topic, partition });

describe('the dedup log', () => {
  it('is made with as many partitions as the input topic has, deleted by time, and never compacted', async () => {
    const { worker, admin, input, dedupLog } = await rig({ partitions: 3 });
    const { store } = worker({ store: { retentionMs: 7_200_000 }, receiver: { retentionMs: 7_200_000 } });
    await store.assign(of(input));
    const { topics } = await admin.fetchTopicMetadata({ topics: [dedupLog] });
    expect(topics[0]!.partitions).toHaveLength(3);
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: 2, name: dedupLog }] });
    const config = Object.fromEntries(resources[0]!.configEntries.map(({ configName, configValue }) => [configName, configValue]));
    expect(config).toMatchObject({
      'cleanup.policy': 'delete',
      'retention.ms': '7200000',
      'retention.bytes': '-1',
      'message.timestamp.type': 'LogAppendTime',
    });
  });

  it.each([
    ['of another partition count', 2, {}, /to have 3 partitions, as tx-.*-in has, got 2/],
    [
      'that is compacted',
      3,
      { 'cleanup.policy': 'compact' },
      /`cleanup.policy` .* to be delete, got compact: ids would be forgotten early/,
    ],
    ['that is deleted too early', 3, { 'retention.ms': '1000' }, /`retention.ms` .* to be at least 1209600000, got 1000/],
    ['that is deleted by size', 3, { 'retention.ms': '-1', 'retention.bytes': '1000000' }, /`retention.bytes` .* to be -1, got 1000000/],
  ])('%s is refused, with the remedy, and nothing is fenced', async (_, numPartitions, config, message) => {
    const { worker, createTopic, input, dedupLog } = await rig({ partitions: 3 });
    await createTopic(dedupLog, numPartitions, config);
    const { store, process } = worker();
    await expect(store.assign(of(input))).rejects.toMatchObject({ code: 'broker', message: expect.stringMatching(message) });
    expect(actions(await process(deliveries(input, ['a'])))).toEqual(['retry fenced']);
  });

  it('of another group is refused, because its transactions would be mixed with ours', async () => {
    const { worker, input } = await rig();
    const first = worker();
    await first.store.assign(of(input));
    const second = worker({ store: { groupId: 'another' } });
    await expect(second.store.assign(of(input))).rejects.toMatchObject({
      code: 'broker',
      message: expect.stringMatching(/each needs a dedup log of its own/),
    });
  });

  it('that can’t be read is not taken for an empty one', async () => {
    const { worker, producer, input, dedupLog, groupId } = await rig();
    const first = worker();
    await first.store.assign(of(input));
    await first.store.close();
    await producer.send({
      topic: dedupLog,
      messages: [{ key: `${groupId}/${input}`, value: 'garbage, but long enough to be one', partition: 0 }],
    });
    const second = worker({ store: { takeOverTimeoutMs: 4_000 } });
    await expect(second.store.assign(of(input))).rejects.toMatchObject({
      code: 'store',
      message: expect.stringMatching(/to be a record of version 1, got version 103/),
    });
  });

  it('is for one input topic', async () => {
    const { worker, input, output } = await rig();
    const { store } = worker();
    await store.assign(of(input));
    await expect(store.assign(of(output))).rejects.toMatchObject({
      code: 'broker',
      message: expect.stringMatching(/Expected one input topic/),
    });
  });

  it('a receiver that wants to remember for longer than the log keeps is refused', async () => {
    const { worker, input } = await rig();
    const { store, process } = worker({ store: { retentionMs: 3_600_000 } });
    await store.assign(of(input));
    const [verdict] = await process(deliveries(input, ['a']));
    expect(verdict).toMatchObject({ action: 'retry', error: { code: 'retention-too-short' } });
  });

  it('keeps no results: a receiver that wants them is refused', async () => {
    const { worker } = await rig();
    expect(() => worker({ receiver: { results: true } })).toThrow('Expected `results` to be false, because the store keeps none');
  });

  it('of a store that the adapter was not given has no owner: nothing is handled, and it is said why', async () => {
    const { worker, input } = await rig();
    const { process } = worker({ handler: () => expect.fail('the handler ran') });
    const [verdict] = await process(deliveries(input, ['a']));
    expect(verdict).toMatchObject({
      reason: 'store',
      error: { message: expect.stringMatching(/to be given the same store as the receiver/) },
    });
  });

  it('keeps what is parked, until it is replayed by the owner of its partition', async () => {
    const { worker, input, output, read } = await rig({ partitions: 2 });
    const attempts: number[] = [];
    let broken = true;
    const handler: AnyHandler = ({ id }, { tx, attempt }) => {
      attempts.push(attempt);
      if (broken) throw new TerminalError('a bug');
      tx.publish(output, { key: id, value: id });
    };
    const first = worker({ handler });
    const key = first.receiver.keyOf(deliveries(input, ['a'])[0]!.message);
    await Promise.all([first.store.assign(of(input, 0)), first.store.assign(of(input, 1))]);
    const other = worker({ handler });
    const again = (by: typeof first) => by.process(deliveries(input, ['a'], { partition: 1 }), 1);
    expect(await first.store.replay(key)).toBe(false);
    expect(actions(await again(first))).toEqual(['dead-letter terminal']);
    broken = false;
    expect(actions(await again(first))).toEqual(['dead-letter terminal']);
    expect(await other.store.replay(key)).toBe(false);
    expect([await first.store.replay(key), await first.store.replay(key)]).toEqual([true, false]);
    // It is in the log: whoever owns the partition next knows it too.
    await first.store.revoke(of(input, 1));
    await other.store.assign(of(input, 1));
    expect(actions(await again(other))).toEqual(['ack completed']);
    expect(attempts).toEqual([1, 1]);
    expect([await first.store.replay(key), await other.store.replay(key)]).toEqual([false, false]);
    expect(valuesOf(await read())).toEqual(['a']);
  });

  it('duplicates in another partition are not recognised: they have to be co-partitioned', async () => {
    const { worker, input, read } = await rig({ partitions: 2 });
    const { store, process } = worker();
    await Promise.all([store.assign(of(input, 0)), store.assign(of(input, 1))]);
    await process(deliveries(input, ['a']), 0);
    expect(actions(await process(deliveries(input, ['a'], { partition: 1 }), 1))).toEqual(['ack completed']);
    expect(valuesOf(await read())).toEqual(['a', 'a']);
  });
});

describe('what is published', () => {
  it('needs a key or a partition, text or bytes, and a size that the broker takes: the handler is told, and the others go on', async () => {
    const { worker, input, output, dedupLog, read } = await rig();
    const bad: Record<string, (tx: any) => void> = {
      nothing: (tx) => tx.publish(output),
      keyless: (tx) => tx.publish(output, { value: 'v' }),
      'null key': (tx) => tx.publish(output, { key: null, value: 'v' }),
      'odd partition': (tx) => tx.publish(output, { partition: -1, value: 'v' }),
      'object value': (tx) => tx.publish(output, { key: 'k', value: { a: 1 } }),
      'no value': (tx) => tx.publish(output, { key: 'k' }),
      'number header': (tx) => tx.publish(output, { key: 'k', value: 'v', headers: { a: 1 } }),
      'too large': (tx) => tx.publish(output, { key: 'k', value: 'x'.repeat(1_000_001) }),
      'no topic': (tx) => tx.publish('', { key: 'k', value: 'v' }),
      'the dedup log': (tx) => tx.publish(dedupLog, { key: 'k', value: 'v' }),
      'an offset': (tx) => tx.commitOffset('77'),
    };
    const told: string[] = [];
    const { store, process } = worker({
      handler: ({ id }, { tx }) => {
        try {
          if (bad[id]) bad[id](tx);
          else tx.publish(output, { key: 'k', value: new Uint8Array([104, 105]), headers: { bytes: Buffer.from('b'), none: undefined } });
        } catch (error) {
          told.push(`${(error as Error).message}`);
          throw new TerminalError('refused');
        }
      },
    });
    await store.assign(of(input));
    const verdicts = actions(await process(deliveries(input, [...Object.keys(bad), 'good'])));
    expect(verdicts).toEqual([...Object.keys(bad).map(() => 'dead-letter terminal'), 'ack completed']);
    expect(told[1]).toMatch(/^Expected `key` to be text or bytes, or `partition` a number: .* got `undefined`/);
    const [only, ...others] = await read();
    expect([only!.value, only!.headers['bytes'], others]).toEqual(['hi', 'b', []]);
  });

  it('with a transaction that is kept until its handler has ended is refused', async () => {
    const { worker, input, output, read } = await rig();
    const late = Promise.withResolvers<unknown>();
    const { store, process } = worker({
      handler: (_, { tx }) => {
        setTimeout(() => {
          try {
            tx.publish(output, { key: 'k', value: 'late' });
          } catch (error) {
            late.resolve(error);
          }
        }, 50);
      },
    });
    await store.assign(of(input));
    await process(deliveries(input, ['a']));
    expect(await late.promise).toMatchObject({ message: expect.stringMatching(/it has ended/) });
    expect(valuesOf(await read())).toEqual([]);
  });

  it('to a topic that is not there stops the unit, not half of it: nothing is published, nothing acked', async () => {
    const { worker, input, output, read } = await rig();
    const { store, process } = worker({
      store: { flushTimeoutMs: 1_500 },
      handler: ({ id }, { tx }) => tx.publish(id === 'b' ? 'not-there' : output, { value: id, partition: 0 }),
    });
    await store.assign(of(input));
    expect(actions(await process(deliveries(input, ['a', 'b'])))).toEqual(['retry store', 'retry store']);
    expect(valuesOf(await read())).toEqual([]);
  });
});

describe('options', () => {
  const kafka = { producer() {}, consumer() {}, admin() {} } as unknown as KafkaTransactionsOptions['kafka'];
  it.each([
    [{ kafka: {} }, /Expected `kafka` to be `new Kafka\(…\)` of kafkajs/],
    [{ groupId: '' }, /Expected `groupId` to be a name/],
    [{ dedupLog: 7 }, /Expected `dedupLog` to be a name/],
    [{ retentionMs: 1 }, /Expected `retentionMs`/],
    [{ flushTimeoutMs: 5_000, transactionTimeoutMs: 5_000 }, /Expected `transactionTimeoutMs` to be a whole number of 5001 or more/],
  ])('%o is refused', (wrong, message) => {
    const options = { kafka, groupId: 'g', dedupLog: 'd', ...wrong } as unknown as KafkaTransactionsOptions;
    expect(() => kafkaTransactions(options)).toThrow(message);
  });
});
