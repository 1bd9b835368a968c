import { SQS, SQSClient } from '@aws-sdk/client-sqs';
import { afterEach } from 'vitest';
import { type SqsPollerOptions, sqsPoller } from '../../../../adapters/brokers/sqs/index.ts';
import type { Receiver } from '../../../../src/index.ts';

/** What a test does when it is over, last things first. */
const endings: (() => unknown)[] = [];

afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

export function atEnd(end: () => unknown): void {
  endings.push(end);
}

const config = (endpoint: string) => ({
  endpoint,
  region: 'us-east-1',
  credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  maxAttempts: 1,
});

/** The SDK's aggregated client. */
export function sqs(endpoint: string): SQS {
  const client = new SQS(config(endpoint));
  atEnd(() => client.destroy());
  return client;
}

/** The SDK's plain client, which takes commands. */
export function sqsClient(endpoint: string): SQSClient {
  const client = new SQSClient(config(endpoint));
  atEnd(() => client.destroy());
  return client;
}

let made = 0;

/** A queue of the test's own, with a dead-letter queue. `.fifo` at the end of `kind` makes both FIFO. */
export async function queues(
  client: SQS,
  kind: string,
  { maxReceiveCount = '3', ...attributes }: Record<string, string> = {},
): Promise<{ url: string; dead: string }> {
  const fifo = kind.endsWith('.fifo');
  const fixed = fifo ? { FifoQueue: 'true' } : undefined;
  const name = `${kind.replace('.fifo', '')}-${process.pid}-${++made}`;
  const suffix = fifo ? '.fifo' : '';
  const { QueueUrl: dead } = await client.createQueue({ QueueName: `${name}-dead${suffix}`, ...(fixed && { Attributes: fixed }) });
  const { Attributes } = await client.getQueueAttributes({ QueueUrl: dead!, AttributeNames: ['QueueArn'] });
  const redrive = { deadLetterTargetArn: Attributes!['QueueArn'], maxReceiveCount };
  const { QueueUrl: url } = await client.createQueue({
    QueueName: `${name}${suffix}`,
    Attributes: { ...fixed, RedrivePolicy: JSON.stringify(redrive), ...attributes },
  });
  return { url: url!, dead: dead! };
}

/** Runs a poller until the test is over. Errors that it tells are in `errors`. */
export function polling(options: Omit<SqsPollerOptions, 'onError'> & { receiver: Receiver }): {
  errors: unknown[];
  stop: () => Promise<unknown>;
} {
  const errors: unknown[] = [];
  const poller = sqsPoller({ ...options, onError: (error) => errors.push(error) });
  const run = poller.run();
  run.catch(() => {});
  const stop = async () => {
    await poller.stop({ graceMs: 100 });
    await run;
  };
  atEnd(stop);
  return { errors, stop };
}

/** Waits for a thing that another process brings about, looking every few milliseconds. */
export async function until(what: () => boolean | Promise<boolean>, withinMs = 15_000): Promise<void> {
  for (const end = performance.now() + withinMs; performance.now() < end; ) {
    if (await what()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`Did not come true within ${withinMs} ms: ${what}`);
}

/** Messages that are in a queue: visible, hidden and delayed. */
export async function count(client: SQS, url: string): Promise<number> {
  const { Attributes = {} } = await client.getQueueAttributes({ QueueUrl: url, AttributeNames: ['All'] });
  return ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible', 'ApproximateNumberOfMessagesDelayed']
    .map((name) => Number((Attributes as Record<string, string>)[name] ?? 0))
    .reduce((sum, each) => sum + each);
}
