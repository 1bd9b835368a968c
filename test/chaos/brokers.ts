import { SQS } from '@aws-sdk/client-sqs';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { proxiedKafka } from '../support/proxied-kafka.ts';
import { proxyTo } from '../support/proxy.ts';
import { ownService } from '../support/services/index.ts';
import type { BrokerName, Order } from './cell.ts';
import { deaths, type Faults, outages } from './faults.ts';

/** The broker, as the harness has it. */
export interface BrokerSide {
  /** Whether messages of one key come in order. */
  readonly isOrdered: boolean;
  readonly faults: Faults;
  /** What workers connect to. */
  readonly url: string;
  open(name: string): Promise<Channel>;
  close(): Promise<void>;
}

/** One queue or topic. The harness uses it beside the proxy. */
export interface Channel {
  /** Queue URL or topic. */
  readonly queue: string;
  /** In any order: no two different ones of one key. */
  send(orders: readonly Order[]): Promise<void>;
  /** Messages that are not acked yet. */
  left(): Promise<number>;
  close(): Promise<void>;
}

/**
 * SQS over HTTP. ElasticMQ keeps its messages in memory, and SQS doesn't forget: so it is paused and cut off, but not killed.
 */
async function sqs(isOrdered: boolean): Promise<BrokerSide> {
  const server = await ownService('elasticmq');
  const { port } = new URL(server.address.endpoint);
  const proxy = await proxyTo({ host: '127.0.0.1', port: Number(port) });
  const credentials = { accessKeyId: 'x', secretAccessKey: 'x' };
  const client = new SQS({ endpoint: server.address.endpoint, region: 'us-east-1', credentials });
  let sent = 0;
  return {
    isOrdered,
    faults: outages(server, proxy),
    url: `http://127.0.0.1:${proxy.port}`,
    async open(name) {
      const suffix = isOrdered ? '.fifo' : '';
      const fifo = isOrdered ? { FifoQueue: 'true' } : undefined;
      const make = async (QueueName: string, more = {}) => {
        const { QueueUrl } = await client.createQueue({ QueueName: QueueName + suffix, Attributes: { ...fifo, ...more } });
        return QueueUrl!;
      };
      const dead = await make(`${name}-dead`);
      const { Attributes } = await client.getQueueAttributes({ QueueUrl: dead, AttributeNames: ['QueueArn'] });
      const redrive = { deadLetterTargetArn: Attributes!['QueueArn'], maxReceiveCount: '1000' };
      const own = await make(name, { RedrivePolicy: JSON.stringify(redrive) });
      return {
        queue: own.replace(`:${port}/`, `:${proxy.port}/`),
        async send(orders) {
          const entries = orders.map((order, i) => ({
            Id: String(i % 10),
            MessageBody: JSON.stringify(order),
            MessageAttributes: { 'message-id': { DataType: 'String', StringValue: order.id } },
            // What the producer sends twice does come twice.
            ...(isOrdered && { MessageGroupId: order.key, MessageDeduplicationId: String(sent++) }),
          }));
          const batches = Array.from({ length: Math.ceil(entries.length / 10) }, (_, n) => entries.slice(10 * n, 10 * n + 10));
          const answers = await Promise.all(batches.map((Entries) => client.sendMessageBatch({ QueueUrl: own, Entries })));
          const failed = answers.flatMap(({ Failed = [] }) => Failed);
          if (failed.length > 0) throw new Error(`Not sent: ${JSON.stringify(failed[0])}`);
        },
        async left() {
          const names = ['Messages', 'MessagesNotVisible', 'MessagesDelayed'].map((each) => `ApproximateNumberOf${each}`);
          const answer = await client.getQueueAttributes({ QueueUrl: own, AttributeNames: ['All'] });
          return names.reduce((sum, each) => sum + Number((answer.Attributes as Record<string, string>)[each] ?? 0), 0);
        },
        async close() {
          await client.deleteQueue({ QueueUrl: own });
          await client.deleteQueue({ QueueUrl: dead });
        },
      };
    },
    async close() {
      client.destroy();
      await proxy.close();
      await server.stop();
    },
  };
}

const partitions = 12;

async function kafka(): Promise<BrokerSide> {
  const { server, proxy, url } = await proxiedKafka();
  const retry = { initialRetryTime: 50, maxRetryTime: 500, retries: 60 };
  const client = new Kafka({ brokers: [url], logLevel: logLevel.NOTHING, requestTimeout: 5_000, retry });
  const admin = client.admin();
  const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await Promise.all([admin.connect(), producer.connect()]);
  return {
    isOrdered: true,
    faults: { ...outages(server, proxy), ...deaths(server) },
    url,
    async open(name) {
      await admin.createTopics({ topics: [{ topic: name, numPartitions: partitions }], waitForLeaders: true });
      return {
        queue: name,
        async send(orders) {
          const messages = orders.map((order) => ({
            key: order.key,
            value: JSON.stringify(order),
            headers: { 'message-id': order.id },
          }));
          await producer.send({ topic: name, messages });
        },
        async left() {
          const ends = await admin.fetchTopicOffsets(name);
          const [found] = await admin.fetchOffsets({ groupId: name, topics: [name] });
          const done = new Map(found!.partitions.map(({ partition, offset }) => [partition, Math.max(0, Number(offset))]));
          return ends.reduce((sum, { partition, high }) => sum + Number(high) - (done.get(partition) ?? 0), 0);
        },
        close: async () => {},
      };
    },
    async close() {
      await Promise.all([admin.disconnect(), producer.disconnect()]);
      await proxy.close();
      await server.stop();
    },
  };
}

const sides: Readonly<Record<BrokerName, () => Promise<BrokerSide>>> = {
  'sqs-fifo': () => sqs(true),
  'sqs-standard': () => sqs(false),
  kafka,
};

export const startBroker = (name: BrokerName): Promise<BrokerSide> => sides[name]();
