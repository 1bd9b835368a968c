import { SQS } from '@aws-sdk/client-sqs';
import { sqsPoller } from '../../adapters/brokers/sqs/index.ts';
import type { Receiver } from '../../src/index.ts';
import type { Order } from './cell.ts';
import type { Task } from './wire.ts';

const clientOf = (endpoint: string) => new SQS({ endpoint, region: 'us-east-1', credentials: { accessKeyId: 'x', secretAccessKey: 'x' } });

/** Until `end`, with the adapter. */
export async function consume(task: Task, receiver: Receiver, working: () => void, end: Promise<void>): Promise<void> {
  const poller = sqsPoller({
    client: clientOf(task.brokerUrl),
    queueUrl: task.queue,
    receiver,
    polls: 2,
    visibilityMs: task.times.visibilityMs,
    waitMs: 1_000,
    requestMs: 2_000,
    onError: () => {},
  });
  const run = poller.run();
  working();
  await end;
  await poller.stop({ graceMs: 2_000 });
  await run;
}

/** As it is usually done. */
export async function consumeNaively(
  task: Task,
  effect: (order: Order) => Promise<void>,
  style: 'ack first' | 'ack last',
  working: () => void,
  end: Promise<void>,
): Promise<void> {
  const client = clientOf(task.brokerUrl);
  const [QueueUrl, VisibilityTimeout] = [task.queue, task.times.visibilityMs / 1_000];
  let over = false;
  void end.then(() => {
    over = true;
  });
  working();
  while (!over) {
    try {
      const { Messages = [] } = await client.receiveMessage({ QueueUrl, VisibilityTimeout, MaxNumberOfMessages: 10, WaitTimeSeconds: 1 });
      for (const { Body, ReceiptHandle } of Messages) {
        const ack = () => client.deleteMessage({ QueueUrl, ReceiptHandle });
        if (style === 'ack first') await ack();
        await effect(JSON.parse(Body!));
        if (style === 'ack last') await ack();
      }
    } catch {
      // The next receive brings it again.
    }
  }
}
