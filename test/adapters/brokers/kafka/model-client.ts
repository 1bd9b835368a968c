import type { KafkaAdmin, KafkaClient, KafkaConsumer, KafkaProducer } from '../../../../adapters/stores/kafka-transactions/client.ts';
import type { ClusterModel } from './model-cluster.ts';
import { kafkajsConsumer, type Wire } from './model-consumer.ts';
import type { ProducerId, TransactionsModel } from './model-transactions.ts';

interface Message {
  readonly key: string | Buffer | null;
  readonly value: string | Buffer | null;
  readonly headers?: Readonly<Record<string, string | Buffer>>;
  readonly partition?: number;
}

/** `new Kafka(…)` of kafkajs 2.2.4, as far as Kafka transactions use it. */
export function kafkajsClient(cluster: ClusterModel, transactions: TransactionsModel, wire: Wire, clientId: string): KafkaClient {
  return {
    producer: (config) => producer(transactions, wire, config),
    consumer: (config) => consumer(cluster, wire, { ...config, clientId }),
    admin: () => admin(cluster, wire),
  };
}

const bytesOf = (value: string | Buffer | null): Buffer | null => (typeof value === 'string' ? Buffer.from(value) : value);

/**
 * A producer with a transactional id. InitProducerId is asked for once; sending is tried again, with the same sequence numbers; EndTxn and AddOffsetsToTxn are
 * not, and after one that failed the producer is of no use any more (facts/kafka.md, 1.3).
 */
function producer(
  transactions: TransactionsModel,
  wire: Wire,
  config: {
    transactionalId: string;
    transactionTimeout: number;
    retry: { initialRetryTime: number; maxRetryTime: number; retries: number };
  },
): KafkaProducer {
  let id: ProducerId | undefined;
  let state: 'ready' | 'transacting' | 'ending' = 'ready';
  let sequence = 0;
  let connected = false;

  async function retrying<T>(run: () => Promise<T>): Promise<T> {
    const { initialRetryTime, maxRetryTime, retries } = config.retry;
    for (let tries = 0; ; tries++) {
      if (!connected) throw Object.assign(new Error('The producer is disconnected'), { retriable: false });
      try {
        return await run();
      } catch (error) {
        if ((error as { retriable?: boolean }).retriable === false || tries === retries) throw error;
        await wire.sleep(Math.min(maxRetryTime, initialRetryTime * 2 ** tries));
      }
    }
  }

  return {
    async connect() {
      await wire.call('Metadata', () => {});
      connected = true;
    },
    async disconnect() {
      connected = false;
    },
    async transaction() {
      if (state === 'transacting') throw new Error('There is already an ongoing transaction for this producer');
      id ??= await retrying(() => wire.call('InitProducerId', () => transactions.init(config.transactionalId, config.transactionTimeout)));
      if (state !== 'ready') throw new Error(`Cannot call "beginTransaction" in state "${state}"`);
      state = 'transacting';
      const own = id;
      const partitions = new Set<string>();
      let hasOffsets = false;

      const guard = () => {
        if (state !== 'transacting') throw new Error('Cannot continue to use transaction once ended');
      };
      async function end(outcome: 'committed' | 'aborted'): Promise<void> {
        guard();
        state = 'ending';
        if (partitions.size > 0 || hasOffsets) await wire.call('EndTxn', () => transactions.end(own, outcome));
        state = 'ready';
      }

      return {
        async sendBatch({ topicMessages }: { topicMessages: readonly { topic: string; messages: readonly Message[] }[] }) {
          guard();
          const byPartition = new Map<string, Message[]>();
          for (const { topic, messages } of topicMessages) {
            for (const message of messages) {
              const name = `${topic}/${message.partition ?? 0}`;
              byPartition.set(name, [...(byPartition.get(name) ?? []), message]);
            }
          }
          const first = ++sequence;
          return retrying(async () => {
            const added = [...byPartition.keys()].filter((name) => !partitions.has(name));
            if (added.length > 0) await wire.call('AddPartitionsToTxn', () => transactions.addPartitions(own, added));
            for (const name of added) partitions.add(name);
            return wire.call('Produce', () =>
              [...byPartition].map(([name, messages]) => {
                const records = messages.map(({ key, value, headers }) => ({ key: bytesOf(key), value: bytesOf(value), headers }));
                const at = name.lastIndexOf('/');
                const baseOffset = String(transactions.produce(own, name, first, records));
                return { topicName: name.slice(0, at), partition: Number(name.slice(at + 1)), baseOffset };
              }),
            );
          });
        },
        async sendOffsets({
          consumerGroupId,
          topics,
        }: {
          consumerGroupId: string;
          topics: readonly { topic: string; partitions: readonly { partition: number; offset: string }[] }[];
        }) {
          guard();
          await wire.call('AddOffsetsToTxn', () => transactions.addOffsets(own, consumerGroupId));
          hasOffsets = true;
          const offsets = new Map(
            topics.flatMap(({ topic, partitions: of }) =>
              of.map(({ partition, offset }) => [`${topic}/${partition}`, Number(offset)] as const),
            ),
          );
          await wire.call('TxnOffsetCommit', () => transactions.commitOffsets(own, consumerGroupId, offsets));
        },
        commit: () => end('committed'),
        abort: () => end('aborted'),
      };
    },
  };
}

function consumer(
  cluster: ClusterModel,
  wire: Wire,
  config: { groupId: string; clientId: string; maxWaitTimeInMs: number },
): KafkaConsumer {
  let topics: string[] = [];
  let made: ReturnType<typeof kafkajsConsumer> | undefined;
  return {
    connect: () => wire.call('Metadata', () => {}),
    async subscribe(subscription: { topics: string[] }) {
      topics = subscription.topics;
    },
    async run(settings) {
      const joined = Promise.withResolvers<void>();
      made = kafkajsConsumer(cluster, wire, { ...config, topics, maxBatch: 100 });
      made.on('consumer.group_join' as never, () => joined.resolve());
      made.on('consumer.crash' as never, ({ payload: { error } }) => joined.reject(error));
      await made.run(settings);
      await joined.promise;
    },
    seek: (position) => made!.seek(position),
    pause: (list) => made!.pause(list),
    resume: (list) => made!.resume(list),
    async disconnect() {
      await made?.stop();
    },
  };
}

function admin(cluster: ClusterModel, wire: Wire): KafkaAdmin {
  const metadata = <T>(run: () => T) => wire.call('Metadata', run);
  return {
    connect: () => metadata(() => {}),
    disconnect: async () => {},
    listTopics: () => metadata(() => cluster.topics),
    createTopics: ({ topics }: { topics: readonly { topic: string; numPartitions: number }[] }) =>
      wire.call('CreateTopics', () => {
        const made = topics.filter(({ topic }) => !cluster.partitions(topic));
        for (const { topic, numPartitions } of made) cluster.createTopic(topic, numPartitions);
        return made.length > 0;
      }),
    fetchTopicMetadata: ({ topics }: { topics: readonly string[] }) =>
      metadata(() => ({
        topics: topics.map((name) => ({ name, partitions: cluster.partitions(name)!.map((_, partitionId) => ({ partitionId })) })),
      })),
    describeConfigs: () =>
      wire.call('DescribeConfigs', () => {
        const configEntries = Object.entries({ 'cleanup.policy': 'delete', 'retention.bytes': '-1', 'retention.ms': '-1' });
        return { resources: [{ configEntries: configEntries.map(([configName, configValue]) => ({ configName, configValue })) }] };
      }),
    fetchTopicOffsets: (topic) =>
      wire.call('ListOffsets', () =>
        cluster.partitions(topic)!.map(({ records }, partition) => ({ partition, low: '0', high: String(records.length) })),
      ),
    fetchTopicOffsetsByTimestamp: (topic, timestamp = 0) =>
      wire.call('ListOffsets', () =>
        cluster.partitions(topic)!.map(({ records }, partition) => {
          const at = records.findIndex((record) => Number(record.timestamp) >= timestamp);
          return { partition, offset: String(at < 0 ? records.length : at) };
        }),
      ),
    fetchOffsets: ({ groupId, topics }: { groupId: string; topics: readonly string[] }) =>
      wire.call('OffsetFetch', () =>
        topics.map((topic) => ({
          topic,
          partitions: cluster.partitions(topic)!.map((_, partition) => ({
            partition,
            offset: String(cluster.group(groupId).committed(`${topic}/${partition}`) ?? -1),
          })),
        })),
      ),
  };
}
