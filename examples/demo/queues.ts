import type { SQS } from '@aws-sdk/client-sqs';
import { buildApp } from 'fauxqs';
import { sqsClient } from './client.ts';
import { visibilityMs } from './settings.ts';

/** SQS, spoken over HTTP on the loopback interface, by a server inside this process. */
export interface Broker {
  readonly endpoint: string;
  readonly client: SQS;
  /** Makes a FIFO and a standard queue, each with a dead-letter queue, for one side. */
  createQueues(side: string): Promise<Queues>;
  close(): Promise<void>;
}

export interface Queues {
  readonly fifo: string;
  readonly standard: string;
  readonly deadLetters: readonly string[];
}

export async function startBroker(): Promise<Broker> {
  const server = buildApp({ logger: false });
  const endpoint = await server.listen({ host: '127.0.0.1', port: 0 });
  const client = sqsClient(endpoint);

  async function createQueue(name: string, attributes: Record<string, string>): Promise<{ url: string; arn: string }> {
    await client.createQueue({ QueueName: name, Attributes: attributes });
    const url = `${endpoint}/000000000000/${name}`;
    const { Attributes } = await client.getQueueAttributes({ QueueUrl: url, AttributeNames: ['QueueArn'] });
    return { url, arn: Attributes!['QueueArn']! };
  }

  async function createPair(name: string, suffix: string, kind: Record<string, string>): Promise<{ url: string; deadLetters: string }> {
    const deadLetters = await createQueue(`${name}-dead-letters${suffix}`, kind);
    const { url } = await createQueue(`${name}${suffix}`, {
      ...kind,
      VisibilityTimeout: String(visibilityMs / 1_000),
      // High: workers that are killed all day make messages come often, and none of them is at fault for it.
      RedrivePolicy: JSON.stringify({ deadLetterTargetArn: deadLetters.arn, maxReceiveCount: 1_000 }),
    });
    return { url, deadLetters: deadLetters.url };
  }

  return {
    endpoint,
    client,
    async createQueues(side) {
      const fifo = await createPair(`${side}-orders`, '.fifo', { FifoQueue: 'true' });
      const standard = await createPair(`${side}-orders`, '', {});
      return { fifo: fifo.url, standard: standard.url, deadLetters: [fifo.deadLetters, standard.deadLetters] };
    },
    async close() {
      client.destroy();
      await server.close();
    },
  };
}

/** How many messages a queue still has: those that wait, and those that a worker holds or held when it died. */
export async function messagesIn(client: SQS, queueUrls: readonly string[]): Promise<number> {
  const names = ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible', 'ApproximateNumberOfMessagesDelayed'] as const;
  const counts = await Promise.all(
    queueUrls.map(async (QueueUrl) => {
      const { Attributes = {} } = await client.getQueueAttributes({ QueueUrl, AttributeNames: [...names] });
      return names.reduce((sum, name) => sum + Number(Attributes[name]), 0);
    }),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}
