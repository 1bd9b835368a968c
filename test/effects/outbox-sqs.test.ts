import type { SQS } from '@aws-sdk/client-sqs';
import { buildApp } from 'fauxqs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sqsDestination } from '../../adapters/brokers/sqs/index.ts';
import type { Delivered, Outgoing } from '../../src/index.ts';
import { queues, sqs } from '../adapters/brokers/sqs/http.ts';
import { service } from '../support/services/index.ts';

const server = buildApp({ logger: false });
const endpoints: Record<string, () => string> = {};
beforeAll(async () => {
  const [fauxqs, { endpoint }] = [await server.listen({ host: '127.0.0.1', port: 0 }), await service('elasticmq')];
  endpoints['fauxqs'] = () => fauxqs;
  endpoints['ElasticMQ'] = () => endpoint;
});
afterAll(() => server.close());

const never = new AbortController().signal;

function outgoing(id: string, more: Partial<Omit<Outgoing, 'id'>> = {}): Outgoing {
  return { id, orderingKey: undefined, body: Buffer.from(`body of ${id}`), headers: {}, ...more };
}

const states = (results: readonly Delivered[]) => results.map(({ state }) => state);

interface Got {
  readonly body: string | undefined;
  readonly group: string | undefined;
  readonly dedup: string | undefined;
  readonly attributes: Readonly<Record<string, string | undefined>>;
}

/** Everything that a queue has. */
async function readAll(client: SQS, url: string, expected: number): Promise<Got[]> {
  const got: Got[] = [];
  for (let empty = 0; got.length < expected && empty < 5; ) {
    const { Messages = [] } = await client.receiveMessage({
      QueueUrl: url,
      MaxNumberOfMessages: 10,
      MessageSystemAttributeNames: ['All'],
      MessageAttributeNames: ['All'],
    });
    if (Messages.length === 0) empty++;
    for (const { Body, Attributes, MessageAttributes = {}, ReceiptHandle } of Messages) {
      const attributes = Object.fromEntries(Object.entries(MessageAttributes).map(([name, { StringValue }]) => [name, StringValue]));
      got.push({ body: Body, group: Attributes?.MessageGroupId, dedup: Attributes?.MessageDeduplicationId, attributes });
      await client.deleteMessage({ QueueUrl: url, ReceiptHandle });
    }
  }
  return got;
}

describe.each(['fauxqs', 'ElasticMQ'])('an SQS queue as a destination (%s)', (name) => {
  it('standard: gets body, attributes and id', async () => {
    const client = sqs(endpoints[name]!());
    const { url } = await queues(client, 'outbox');
    const destination = sqsDestination(client, url);
    const all = Array.from({ length: 25 }, (_, i) => outgoing(`id-${i}`, { headers: { kind: 'charge' }, orderingKey: 'k' }));
    expect(new Set(states(await destination.send(all, never)))).toEqual(new Set(['sent']));
    const got = await readAll(client, url, 25);
    expect(got.map(({ attributes }) => attributes['idempotency-key']).toSorted()).toEqual(all.map(({ id }) => id).toSorted());
    expect(got[0]).toMatchObject({
      attributes: { kind: 'charge' },
      body: `body of ${got[0]!.attributes['idempotency-key']}`,
      dedup: undefined,
    });
  });

  it('FIFO: the ordering key is the group, the id is the deduplication id, so a copy that is sent again within five minutes is dropped by SQS', async () => {
    const client = sqs(endpoints[name]!());
    const { url } = await queues(client, 'outbox.fifo');
    const destination = sqsDestination(client, url);
    const all = Array.from({ length: 23 }, (_, i) => outgoing(`id-${i}`, { orderingKey: `group ${i % 2}` }));
    for (const _ of ['first', 'copy']) expect(new Set(states(await destination.send(all, never)))).toEqual(new Set(['sent']));
    await destination.send([outgoing('alone')], never);
    const got = await readAll(client, url, 24);
    expect(got).toHaveLength(24);
    for (const parity of [0, 1]) {
      const ids = got
        .map(({ attributes }) => attributes['idempotency-key']!)
        .filter((id) => id !== 'alone' && Number(id.slice(3)) % 2 === parity);
      expect(ids).toEqual(all.map(({ id }) => id).filter((id) => Number(id.slice(3)) % 2 === parity));
    }
    // A blank is not allowed in a group: its digest stands for it. The message without an ordering key is a group of its own.
    expect(new Set(got.map(({ group }) => group)).size).toBe(3);
    expect(got.find(({ attributes }) => attributes['idempotency-key'] === 'alone')).toMatchObject({ group: 'alone', dedup: 'alone' });
  });

  it('refuses what SQS would not take, and sends the others', async () => {
    const client = sqs(endpoints[name]!());
    const { url } = await queues(client, 'outbox.fifo');
    const destination = sqsDestination(client, url, { maxMessageBytes: 10_000 });
    const results = await destination.send(
      [
        outgoing('1', { orderingKey: 'a' }),
        outgoing('nothing', { orderingKey: 'b', body: null }),
        outgoing('bytes', { orderingKey: 'c', body: Uint8Array.from([255, 254]) }),
        outgoing('control', { orderingKey: 'd', body: Buffer.from('\u0001') }),
        outgoing('long', { orderingKey: 'e', body: Buffer.alloc(10_000, 'x') }),
        outgoing('headers', { orderingKey: 'f', headers: Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`h${i}`, 'x'])) }),
        outgoing('behind', { orderingKey: 'f' }),
        outgoing('2', { orderingKey: 'a' }),
      ],
      never,
    );
    expect(states(results)).toEqual(['sent', 'refused', 'refused', 'refused', 'refused', 'refused', 'failed', 'sent']);
    expect((await readAll(client, url, 2)).map(({ body }) => body)).toEqual(['body of 1', 'body of 2']);
  });

  it('does not blame the messages for a queue that is not there', async () => {
    const client = sqs(endpoints[name]!());
    const { url } = await queues(client, 'outbox');
    const destination = sqsDestination(client, url.replace(/[^/]+$/, 'missing'), { attempts: 2 });
    expect(states(await destination.send([outgoing('1'), outgoing('2')], never))).toEqual(['failed', 'failed']);
  });
});
