import { describe, expect, it } from 'vitest';
import { type SqsSenderOptions, sqsSender } from '../../../../adapters/brokers/sqs/index.ts';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { attribute, createReceiver } from '../../../../src/index.ts';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';
import { watch } from '../../../support/stand.ts';
import { sqsModel } from './model.ts';
import { bodies } from './rig.ts';

interface Order {
  id: string;
  customer?: string;
  text?: string;
}

function sending(name = 'work', more: Partial<SqsSenderOptions<Order>> = {}) {
  const world = virtualWorld();
  const model = sqsModel(world.clock);
  const queueUrl = model.createQueue(name);
  const fifo = name.endsWith('.fifo');
  const sender = sqsSender<Order>({
    client: model,
    queueUrl,
    world,
    key: ({ id }) => id,
    ...(fifo && { group: ({ customer = 'c' }: Order) => customer }),
    ...more,
  });
  const requests = () => model.log.filter((each) => each.name === 'sendMessageBatch').map(({ request }) => request.Entries);
  /** Sends and lets time go on until it is done. */
  async function send(messages: Order[], options?: { signal?: AbortSignal }) {
    const done = watch(sender.send(messages, options));
    await world.advance(60_000);
    expect(done.done).toBe(true);
    expect(world.timers).toBe(0);
    return done.value!;
  }
  return { world, model, queueUrl, sender, requests, send };
}

const orders = (count: number): Order[] => Array.from({ length: count }, (_, i) => ({ id: `order-${i}` }));

describe('a sender', () => {
  it('puts the key into an attribute, and on a standard queue nowhere else', async () => {
    const { send, requests } = sending();
    expect(await send([{ id: 'a b' }])).toEqual([{ state: 'sent', messageId: 'message-1' }]);
    expect(requests()).toEqual([
      [{ Id: '0', MessageBody: '{"id":"a b"}', MessageAttributes: { 'idempotency-key': { DataType: 'String', StringValue: 'a b' } } }],
    ]);
  });

  it('derives group and deduplication id from the same functions on a FIFO queue', async () => {
    const { send, requests } = sending('work.fifo');
    const ids = ['plain', 'x'.repeat(128), 'x'.repeat(129), 'with space', 'é'];
    await send(ids.map((id) => ({ id, customer: 'c 1' })));
    const entries = requests()[0];
    expect(entries.map((entry: any) => entry.MessageAttributes['idempotency-key'].StringValue)).toEqual(ids);
    const given = entries.map((entry: any) => entry.MessageDeduplicationId);
    expect(given.slice(0, 2)).toEqual(ids.slice(0, 2));
    for (const id of given.slice(2)) expect(id).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set(given).size).toBe(5);
    expect(new Set(entries.map((entry: any) => entry.MessageGroupId)).size).toBe(1);
    expect(entries[0].MessageGroupId).toMatch(/^[0-9a-f]{64}$/);
  });

  it('sends a message again after SQS has forgotten it, and the receiver still knows it by its key', async () => {
    const { send, model, queueUrl, world } = sending('work.fifo');
    await send([{ id: 'order-1' }]);
    await world.advance(300_000);
    await send([{ id: 'order-1' }]);
    expect(bodies(model, queueUrl)).toHaveLength(2);
    let runs = 0;
    const receiver = createReceiver(
      { scope: 's', key: attribute('idempotency-key'), store: memoryStore({ now: world.clock.now }), world },
      () => void runs++,
    );
    for (const { id, body, attributes } of model.messages(queueUrl)) {
      await receiver.process([{ message: { id, body, headers: { 'idempotency-key': attributes!['idempotency-key']!.StringValue! } } }]);
    }
    expect(runs).toBe(1);
  });

  it('passes a tenant as the group of a fair queue, without a deduplication id', async () => {
    const { send, requests } = sending('work', { group: ({ customer }) => customer! });
    await send([{ id: '1', customer: 'tenant-1' }]);
    expect(requests()[0][0]).toMatchObject({ MessageGroupId: 'tenant-1' });
    expect(requests()[0][0]).not.toHaveProperty('MessageDeduplicationId');
  });

  it('cuts batches at ten messages and at the size that SQS takes', async () => {
    const { send, requests } = sending();
    const results = await send([...orders(12), ...Array.from({ length: 3 }, (_, i) => ({ id: `big-${i}`, text: 'é'.repeat(250_000) }))]);
    expect(results.every(({ state }) => state === 'sent')).toBe(true);
    expect(
      requests()
        .map(({ length }) => length)
        .sort(),
    ).toEqual([1, 10, 4]);
  });

  it.each<[string, Partial<SqsSenderOptions<Order>>, Order, string, string]>([
    [
      'too large',
      { maxMessageBytes: 262_144 },
      { id: '1', text: 'x'.repeat(262_144) },
      'broker',
      'Expected a message at most 262144 bytes long, attributes included, got 262186 bytes',
    ],
    ['an empty key', {}, { id: ' ' }, 'invalid-key', 'a string that is not empty'],
    ['a key with a lone surrogate', {}, { id: '\ud800' }, 'invalid-key', 'well-formed'],
    ['a key with a control character', {}, { id: 'a\u0000' }, 'broker', 'attribute idempotency-key of characters that SQS takes'],
    ['a body with a control character', { body: () => 'a\u0001' }, { id: '1' }, 'broker', 'a body of characters that SQS takes'],
    ['an empty body', { body: () => '' }, { id: '1' }, 'broker', 'a body that is text and not empty'],
    [
      'too many attributes',
      { attributes: () => Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`a${i}`, 'v'])) },
      { id: '1' },
      'broker',
      'at most 10 attributes',
    ],
    [
      'a function that throws',
      {
        key: () => {
          throw new Error('no id');
        },
      },
      { id: '1' },
      'broker',
      'no id',
    ],
  ])('says which message can’t be sent, without sending it: %s', async (_, options, order, code, message) => {
    const { send, requests } = sending('work', options);
    expect(await send([order])).toEqual([
      {
        state: 'failed',
        retriable: false,
        refused: true,
        error: expect.objectContaining({ code, message: expect.stringContaining(message) }),
      },
    ]);
    expect(requests()).toEqual([]);
  });

  it('sends refused messages again, with the same key, and only they; a sender’s fault is final unless it is throttling', async () => {
    const { send, model, requests, queueUrl } = sending();
    const failures = [
      [
        { Id: '1', Code: 'InternalError', SenderFault: false },
        { Id: '2', Code: 'InvalidMessageContents', SenderFault: true, Message: 'bad' },
        { Id: '3', Code: 'RequestThrottled', SenderFault: true },
      ],
    ];
    model.intercept = async (_name, request, run) => {
      const failed = failures.shift();
      if (!failed) return run();
      model.put(queueUrl, request.Entries[0].MessageBody);
      return { Successful: [{ Id: '0', MessageId: 'message-1' }], Failed: failed };
    };
    const results = await send(orders(4));
    expect(results.map(({ state }) => state)).toEqual(['sent', 'sent', 'failed', 'sent']);
    expect(results[2]).toMatchObject({ retriable: false, error: { message: expect.stringContaining('InvalidMessageContents: bad') } });
    expect(requests().map((entries) => entries.map((entry: any) => entry.MessageAttributes['idempotency-key'].StringValue))).toEqual([
      ['order-0', 'order-1', 'order-2', 'order-3'],
      ['order-1', 'order-3'],
    ]);
    expect(bodies(model, queueUrl)).toHaveLength(3);
  });

  it('sends again when the answer is lost; on a FIFO queue SQS drops the copy', async () => {
    const { send, model, queueUrl } = sending('work.fifo');
    let lost = 1;
    model.intercept = async (_name, _request, run) => {
      const answer = await run();
      if (lost-- > 0) throw Object.assign(new Error('reset'), { code: 'ECONNRESET' });
      return answer;
    };
    expect((await send(orders(2))).map(({ state }) => state)).toEqual(['sent', 'sent']);
    expect(bodies(model, queueUrl)).toHaveLength(2);
  });

  it('gives up after its tries, and says that trying again is safe', async () => {
    const { send, model, requests } = sending('work', { attempts: 3 });
    model.intercept = () => new Promise(() => {});
    expect(await send(orders(1))).toEqual([
      {
        state: 'failed',
        refused: false,
        retriable: true,
        error: expect.objectContaining({ code: 'broker', message: expect.stringContaining('No answer within 5000 ms') }),
      },
    ]);
    expect(requests()).toHaveLength(3);
  });

  it('does not try again what can’t succeed, such as a queue that does not exist', async () => {
    const { send, model, requests } = sending();
    model.intercept = () =>
      Promise.reject(Object.assign(new Error('none'), { name: 'QueueDoesNotExist', $metadata: { httpStatusCode: 400 } }));
    expect(await send(orders(1))).toMatchObject([{ state: 'failed', retriable: false }]);
    expect(requests()).toHaveLength(1);
  });

  it('sends nothing of a FIFO group ahead of an earlier message of it that failed', async () => {
    const { send, model, requests, queueUrl } = sending('work.fifo', { attempts: 2, maxMessageBytes: 1_024 });
    model.intercept = async (_name, request, run) =>
      request.Entries.some((entry: any) => entry.MessageGroupId === 'bad')
        ? Promise.reject(Object.assign(new Error('x'), { code: 'ECONNRESET' }))
        : run();
    const of = (customer: string, count: number) => orders(count).map(({ id }) => ({ id: `${customer}-${id}`, customer }));
    const results = await send([
      ...of('bad', 12),
      ...of('good', 3),
      { id: 'large', customer: 'good', text: 'x'.repeat(2_000) },
      { id: 'behind', customer: 'good' },
    ]);
    expect(results.map(({ state }) => state)).toEqual([...Array(12).fill('failed'), ...Array(3).fill('sent'), 'failed', 'failed']);
    expect(results.map((result) => result.state === 'failed' && result.retriable)).toEqual([
      ...Array(12).fill(true),
      ...Array(3).fill(false),
      false,
      true,
    ]);
    const sent = requests()
      .flat()
      .map((entry: any) => entry.MessageAttributes['idempotency-key'].StringValue);
    expect(sent.filter((id: string) => id.startsWith('bad') && Number(id.slice(10)) > 9)).toEqual([]);
    expect(bodies(model, queueUrl)).toHaveLength(3);
  });

  it('ends soon when its signal is aborted, and says what is not known to be sent', async () => {
    const { sender, model, world } = sending();
    model.intercept = () => new Promise(() => {});
    const stop = new AbortController();
    const done = watch(sender.send(orders(100), { signal: stop.signal }));
    await world.advance(100);
    stop.abort();
    await world.advance(0);
    expect(done.value).toHaveLength(100);
    expect(done.value!.every((result) => result.state === 'failed' && result.retriable)).toBe(true);
    expect(world.timers).toBe(0);
  });

  it.each([
    [{ queueUrl: 'x' }, '`queueUrl`'],
    [{ key: undefined as never }, '`key`'],
    [{ queueUrl: 'https://sqs/0/work.fifo' }, '`group` to be a function, because the queue is a FIFO queue'],
    [{ keyAttribute: 'AWS.key' }, '`keyAttribute`'],
    [{ maxMessageBytes: 1_048_577 }, '`maxMessageBytes`'],
    [{ attempts: 0 }, '`attempts`'],
  ])('checks its options at construction: %o', (wrong, message) => {
    expect(() => sending('work', wrong)).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining(message) }),
    );
  });
});
