import { buildApp } from 'fauxqs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { sqsSender } from '../../../../adapters/brokers/sqs/index.ts';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { attribute, createReceiver, type EventHooks, TerminalError } from '../../../../src/index.ts';
import { atEnd, count, polling, queues, sqs, sqsClient, until } from './http.ts';

/**
 * The real SDK over HTTP against fauxqs. Where it differs from AWS: it hands out one message of a FIFO group in a receive (AWS: as many as it
 * can), deletes by an expired FIFO handle (AWS: refuses), ignores ReceiveRequestAttemptId, and keeps the deduplication id of a
 * message that it moves to a dead-letter queue (AWS: the original MessageId). None of these tests leans on that.
 */
const server = buildApp({ logger: false });
let endpoint: string;
beforeAll(async () => {
  endpoint = await server.listen({ host: '127.0.0.1', port: 0 });
});
afterAll(() => server.close());

interface Order {
  id: string;
}

function orders(on: EventHooks = {}, handler: (order: Order) => unknown = () => {}, more: Record<string, unknown> = {}) {
  const handled: string[] = [];
  const receiver = createReceiver(
    { scope: 'orders', key: attribute('idempotency-key'), store: memoryStore(), leaseMs: 1_000, on, ...more },
    async (order: any) => {
      handled.push(order.id);
      return handler(order);
    },
  );
  return { handled, receiver };
}

describe.each(['SQS', 'SQSClient'] as const)('sender and poller with the SDK’s %s', (kind) => {
  const clientOf = () => (kind === 'SQS' ? sqs(endpoint) : sqsClient(endpoint));

  it.each(['standard', 'queue.fifo'])('bring each message to the handler once, and empty the queue (%s)', async (name) => {
    const admin = sqs(endpoint);
    const { url } = await queues(admin, name);
    const client = clientOf();
    const sender = sqsSender<Order>({
      client,
      queueUrl: url,
      key: ({ id }) => id,
      ...(name.endsWith('.fifo') && { group: ({ id }: Order) => id.at(-1)! }),
    });
    const messages = Array.from({ length: 25 }, (_, i) => ({ id: `order-${i}` }));
    const results = await sender.send([...messages, ...messages.slice(0, 5)]);
    expect(results.every(({ state }) => state === 'sent')).toBe(true);
    const { handled, receiver } = orders();
    const { errors } = polling({ client, queueUrl: url, receiver, polls: 2 });
    await until(async () => (await count(admin, url)) === 0);
    expect(handled.toSorted()).toEqual(messages.map(({ id }) => id).toSorted());
    expect(errors).toEqual([]);
  });
});

it('stops a long poll at once, and leaves nothing in flight', async () => {
  const admin = sqs(endpoint);
  const { url } = await queues(admin, 'idle');
  const { receiver, handled } = orders();
  const { stop } = polling({ client: sqs(endpoint), queueUrl: url, receiver });
  await until(
    async () => (
      await admin.sendMessage({
        QueueUrl: url,
        MessageBody: '{"id":"1"}',
        MessageAttributes: { 'idempotency-key': { DataType: 'String', StringValue: '1' } },
      }),
      true
    ),
  );
  await until(() => handled.length === 1);
  const startedAt = performance.now();
  await stop();
  // Of 20 s.
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  expect(await count(admin, url)).toBe(0);
});

it('knows a message that its producer sends again after SQS has forgotten it', async () => {
  const admin = sqs(endpoint);
  const { url } = await queues(admin, 'again.fifo');
  const client = sqs(endpoint);
  const sender = sqsSender<Order>({ client, queueUrl: url, key: ({ id }) => id, group: () => 'g' });
  const [first] = await sender.send([{ id: 'order-1' }]);
  const [copy] = await sender.send([{ id: 'order-1' }]);
  expect(copy).toEqual(first);
  // Five minutes later: fauxqs runs in this process, and looks at this process's clock.
  const now = Date.now();
  vi.spyOn(Date, 'now').mockImplementation(() => now + 301_000);
  atEnd(() => vi.restoreAllMocks());
  const [late] = await sender.send([{ id: 'order-1' }]);
  expect(late).toMatchObject({ state: 'sent' });
  expect(late).not.toEqual(first);
  const kinds: string[] = [];
  const { handled, receiver } = orders({ duplicate: ({ kind }) => void kinds.push(kind) });
  polling({ client, queueUrl: url, receiver });
  await until(async () => (await count(admin, url)) === 0);
  expect(handled).toEqual(['order-1']);
  expect(kinds).toHaveLength(1);
});

it('does not lose a message whose delete is refused with status 200, or never answered', async () => {
  const admin = sqs(endpoint);
  const { url } = await queues(admin, 'refused');
  const client = sqs(endpoint);
  let faults = 0;
  client.middlewareStack.add(
    (next, context) => async (args) => {
      if (context.commandName !== 'DeleteMessageBatchCommand' || ++faults > 2) return next(args);
      if (faults === 2) throw Object.assign(new Error('reset'), { code: 'ECONNRESET' });
      const { Entries } = args.input as { Entries: { Id: string }[] };
      return {
        response: {},
        output: { $metadata: {}, Failed: Entries.map(({ Id }) => ({ Id, Code: 'InternalError', SenderFault: false })) },
      };
    },
    { step: 'initialize' },
  );
  const { handled, receiver } = orders();
  const { errors } = polling({ client, queueUrl: url, receiver });
  await sqsSender<Order>({ client, queueUrl: url, key: ({ id }) => id }).send([{ id: '1' }]);
  await until(async () => handled.length === 1 && (await count(admin, url)) === 0);
  expect(faults).toBe(3);
  expect(handled).toEqual(['1']);
  expect(errors).toHaveLength(2);
});

it('holds a message longer than its visibility while its handler runs, and SQS gives it to nobody else', async () => {
  const admin = sqs(endpoint);
  const { url } = await queues(admin, 'slow', { VisibilityTimeout: '1' });
  const client = sqs(endpoint);
  let end!: () => void;
  const { handled, receiver } = orders({}, () => new Promise<void>((resolve) => (end = resolve)), { leaseMs: 300 });
  polling({ client, queueUrl: url, receiver, visibilityMs: 1_000 });
  await sqsSender<Order>({ client, queueUrl: url, key: ({ id }) => id }).send([{ id: '1' }]);
  await until(() => handled.length === 1);
  // Visibility counts in real seconds: this waits for more than one of them, as somebody else.
  const { Messages } = await admin.receiveMessage({ QueueUrl: url, WaitTimeSeconds: 2 });
  expect(Messages).toBeUndefined();
  end();
  await until(async () => (await count(admin, url)) === 0);
  expect(handled).toEqual(['1']);
});

it('leaves a poisonous message to the redrive policy, which moves it to the dead-letter queue', async () => {
  const admin = sqs(endpoint);
  const { url, dead } = await queues(admin, 'poison', { maxReceiveCount: '2' });
  const client = sqs(endpoint);
  const { handled, receiver } = orders({}, () => {
    throw new TerminalError('no such customer');
  });
  polling({ client, queueUrl: url, receiver });
  await sqsSender<Order>({ client, queueUrl: url, key: ({ id }) => id }).send([{ id: '1' }]);
  await until(async () => (await count(admin, dead)) === 1, 10_000);
  expect(handled).toEqual(['1']);
}, 15_000);

it('sends a poisonous message to the dead-letter queue that it is told, with the reason', async () => {
  const admin = sqs(endpoint);
  const { url, dead } = await queues(admin, 'poison.fifo');
  const client = sqs(endpoint);
  const { receiver } = orders({}, () => {
    throw new TerminalError('no such customer');
  });
  polling({ client, queueUrl: url, receiver, deadLetter: { queueUrl: dead } });
  await sqsSender<Order>({ client, queueUrl: url, key: ({ id }) => id, group: () => 'g' }).send([{ id: '1' }]);
  await until(async () => (await count(admin, dead)) === 1 && (await count(admin, url)) === 0);
  const { Messages } = await admin.receiveMessage({ QueueUrl: dead, MessageAttributeNames: ['All'], MessageSystemAttributeNames: ['All'] });
  const [message] = Messages!;
  expect(message).toMatchObject({ Body: '{"id":"1"}', Attributes: { MessageGroupId: 'g' } });
  expect(
    Object.fromEntries(Object.entries(message!.MessageAttributes!).map(([name, { StringValue }]) => [name, StringValue])),
  ).toMatchObject({
    'idempotency-key': '1',
    'dead-letter-reason': 'terminal',
    'dead-letter-detail': 'TerminalError: no such customer',
  });
});

it('refuses to start on a queue that does not exist', async () => {
  const { receiver } = orders();
  const { sqsPoller } = await import('../../../../adapters/brokers/sqs/index.ts');
  const poller = sqsPoller({ client: sqs(endpoint), queueUrl: `${endpoint}/000000000000/none`, receiver, onError: () => {} });
  await expect(poller.run()).rejects.toMatchObject({ code: 'broker', message: expect.stringContaining('GetQueueAttributes') });
  await receiver.stop();
});
