import { describe, expect, it } from 'vitest';
import { TerminalError } from '../../../../src/index.ts';
import { actions } from '../../../support/stand.ts';
import { deliveries, rig, valuesOf } from './rig.ts';

const numbered = (prefix: string, count: number, from = 0) => Array.from({ length: count }, (_, i) => `${prefix}${from + i}`);

describe('a unit of kafkaTransactions', () => {
  it('commits what handlers publish, the ids and the offset together; a producer’s duplicate at another offset is acked without the handler', async () => {
    const { worker, input, read, committed } = await rig();
    const { store, process } = worker();
    expect(await store.assign({ topic: input, partition: 0 })).toEqual({ offset: undefined });
    expect(actions(await process(deliveries(input, numbered('m', 10))))).toEqual(Array.from({ length: 10 }, () => 'ack completed'));
    expect(actions(await process(deliveries(input, numbered('m', 10, 5), { from: 10 })))).toEqual([
      ...Array.from({ length: 5 }, () => 'ack duplicate'),
      ...Array.from({ length: 5 }, () => 'ack completed'),
    ]);
    expect(valuesOf(await read())).toEqual(numbered('m', 15));
    expect(await committed()).toBe('20');
  });

  it('after a restart it is known what has committed: ids, attempts, parked messages, the offset', async () => {
    const { worker, input, read } = await rig();
    const handler = (payload: { id: string }, { tx, attempt }: any) => {
      if (payload.id === 'bad') throw new TerminalError('closed');
      if (payload.id === 'later' && attempt < 3) throw new Error('not yet');
      tx.publish(`${input.slice(0, -3)}-out`, { value: `${payload.id} ${attempt}`, partition: 0 });
    };
    const batch = deliveries(input, ['a', 'bad', 'later', 'b']);
    const first = worker({ handler });
    await first.store.assign({ topic: input, partition: 0 });
    expect(actions(await first.process(batch))).toEqual(['ack completed', 'dead-letter terminal', 'retry failed', 'ack completed']);
    await first.store.close();

    const second = worker({ handler });
    expect(await second.store.assign({ topic: input, partition: 0 })).toEqual({ offset: '2' });
    expect(actions(await second.process(batch))).toEqual(['ack duplicate', 'dead-letter terminal', 'retry failed', 'ack duplicate']);
    expect((await second.process(batch))[1]).toMatchObject({ reason: 'terminal', detail: 'TerminalError: closed', attempts: 1 });
    await second.store.close();

    const third = worker({ handler });
    expect(await third.store.assign({ topic: input, partition: 0 })).toEqual({ offset: '4' });
    expect(actions(await third.process(batch))).toEqual(['ack duplicate', 'dead-letter terminal', 'ack duplicate', 'ack duplicate']);
    expect(valuesOf(await read())).toEqual(['a 1', 'b 1', 'later 3']);
  });

  it('a failing handler publishes nothing, and the others of its unit do', async () => {
    const { worker, input, output, read } = await rig();
    const { store, process } = worker({
      handler: (payload, { tx }) => {
        tx.publish(output, { value: payload.id, partition: 0 });
        if (payload.id === 'm1') throw new Error('after it has published');
      },
    });
    await store.assign({ topic: input, partition: 0 });
    expect(actions(await process(deliveries(input, numbered('m', 3))))).toEqual(['ack completed', 'retry failed', 'ack completed']);
    expect(valuesOf(await read())).toEqual(['m0', 'm2']);
  });

  it('the same key with another payload is a mismatch, also after a restart', async () => {
    const { worker, input } = await rig();
    const other = [{ message: { id: `${input}/0/1`, body: '{"id":"m0","other":true}', headers: { id: 'm0' } } }];
    const first = worker();
    await first.store.assign({ topic: input, partition: 0 });
    await first.process(deliveries(input, ['m0']));
    expect(actions(await first.process(other))).toEqual(['dead-letter mismatch']);
    await first.store.close();
    const second = worker();
    await second.store.assign({ topic: input, partition: 0 });
    expect(actions(await second.process(other))).toEqual(['dead-letter mismatch']);
  });

  it('ids of published messages are the same when the handler runs again, and they name their cause', async () => {
    const { worker, input, output, read } = await rig();
    let fail = true;
    const seen: unknown[] = [];
    const { store, process } = worker({
      handler: (_, { tx }) => {
        tx.publish(output, { key: 'k', value: 'first' });
        tx.publish(output, { key: 'k', value: 'named', name: 'receipt', headers: { 'x-own': 'mine' } });
        tx.publish(output, { key: 'k', value: 'own', headers: { 'message-id': 'my own' } });
        seen.push(fail);
        if (fail) throw new Error('no');
      },
    });
    await store.assign({ topic: input, partition: 0 });
    await process(deliveries(input, ['m0']));
    fail = false;
    await process(deliveries(input, ['m0']));
    await process(deliveries(input, ['m1'], { from: 1 }));
    const all = await read();
    const ids = all.map(({ headers }) => headers['message-id']);
    expect(all.map(({ headers }) => headers['causation-id'])).toEqual([...Array(3).fill(`${input}/0/0`), ...Array(3).fill(`${input}/0/1`)]);
    expect([ids[2], ids[5], all[1]!.headers['x-own']]).toEqual(['my own', 'my own', 'mine']);
    expect(new Set([ids[0], ids[1], ids[3], ids[4]]).size).toBe(4);
    expect(seen).toEqual([true, false, false]);
    // Another worker that never saw this one's runs derives the same.
    const elsewhere = await rig();
    const again = elsewhere.worker({ handler: (_, { tx }) => tx.publish(elsewhere.output, { key: 'k', value: 'first' }) });
    await again.store.assign({ topic: elsewhere.input, partition: 0 });
    await again.process(deliveries(elsewhere.input, ['m0']));
    expect((await elsewhere.read())[0]!.headers['message-id']).toBe(ids[0]);
  });

  it('messages of one key keep their order, over thousands of messages in requests of limited size', async () => {
    const { worker, input, output, read } = await rig({ partitions: 3 });
    const { store, process } = worker({
      store: { maxMessageBytes: 20_000 },
      receiver: { groupSize: 1_000 },
      handler: (payload, { tx }) => {
        tx.publish(output, { key: `k${Number(payload.id.slice(1)) % 7}`, value: payload.id.padEnd(200, '.') });
      },
    });
    await store.assign({ topic: input, partition: 2 });
    await process(deliveries(input, numbered('m', 2_000), { partition: 2 }), 2);
    const all = await read();
    expect(all).toHaveLength(2_000);
    for (const [key, of] of Map.groupBy(all, (each) => each.key)) {
      const order = of.map(({ value }) => Number(/\d+/.exec(value)![0]));
      expect(order, key).toEqual([...order].sort((a, b) => a - b));
    }
  });
});
