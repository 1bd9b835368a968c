import { type Clock, sleep } from '../../../src/clock.ts';
import { describeError, ReceiverError } from '../../../src/errors.ts';
import type { KafkaAdmin, KafkaClient, TopicPartition } from './client.ts';

/** What the store asks of the cluster beside reading and writing. */
export interface Topics {
  /** Makes the dedup log if it isn't there, and makes sure that it fits to an input topic, the only one. @throws ReceiverError `broker`, with the remedy */
  check(topic: string): Promise<void>;
  /** The committed offset of the group; undefined if there is none. */
  committed(of: TopicPartition): Promise<string | undefined>;
  /** Where a partition of the log begins that was not written before `sinceMs`. */
  start(partition: number, sinceMs: number): Promise<string>;
  /** Where a partition of the log begins. */
  low(partition: number): Promise<string>;
  close(): Promise<void>;
}

export interface TopicsOptions {
  readonly groupId: string;
  readonly dedupLog: string;
  readonly retentionMs: number;
  readonly clock: Clock;
}

/** Partitions that are assigned together share a check. Another assignment may come because partitions were added. */
const freshMs = 2_000;

export function topics(kafka: KafkaClient, { groupId, dedupLog, retentionMs, clock }: TopicsOptions): Topics {
  let connected: Promise<KafkaAdmin> | undefined;
  let checked: { readonly topic: string; readonly atMs: number; readonly done: Promise<void> } | undefined;
  /** The first one that fits. */
  let input: string | undefined;

  async function admin(): Promise<KafkaAdmin> {
    connected ??= (async () => {
      const made = kafka.admin();
      await made.connect();
      return made;
    })();
    connected.catch(() => {
      connected = undefined;
    });
    return connected;
  }

  async function asking<T>(what: string, ask: (admin: KafkaAdmin) => Promise<T>): Promise<T> {
    try {
      return await ask(await admin());
    } catch (cause) {
      if (cause instanceof ReceiverError) throw cause;
      // It may be in any state.
      void close();
      throw new ReceiverError('store', `Kafka did not answer ${what}: ${describeError(cause)}`, { cause });
    }
  }

  async function close(): Promise<void> {
    const closing = connected;
    connected = undefined;
    await closing?.then((made) => made.disconnect()).catch(() => {});
  }

  function partitionsOf(admin: KafkaAdmin, topic: string): Promise<number | undefined> {
    // Asking for a topic that is not there is an error, after many tries.
    return admin.listTopics().then(async (all) => {
      if (!all.includes(topic)) return undefined;
      const { topics: found } = await admin.fetchTopicMetadata({ topics: [topic] });
      return found[0]!.partitions.length;
    });
  }

  async function checkOnce(topic: string): Promise<void> {
    await asking(`for topics ${topic} and ${dedupLog}`, async (admin) => {
      const partitions = await partitionsOf(admin, topic);
      if (partitions === undefined) throw new ReceiverError('broker', `Expected topic ${topic} to exist, and it doesn't`);
      let logPartitions = await partitionsOf(admin, dedupLog);
      if (logPartitions === undefined) {
        const log = { topic: dedupLog, numPartitions: partitions, configEntries: configOf(retentionMs) };
        // Answers false if somebody else has made it meanwhile. Brokers learn of a new topic one after another, which kafkajs takes for an error.
        await admin.createTopics({ topics: [log], waitForLeaders: false });
        for (let tries = 0; logPartitions === undefined && tries < 50; tries++) {
          await sleep(clock, 100);
          logPartitions = await partitionsOf(admin, dedupLog).catch(() => undefined);
        }
      }
      if (logPartitions !== partitions) {
        throw new ReceiverError(
          'broker',
          `Expected the dedup log ${dedupLog} to have ${partitions} partitions, as ${topic} has, got ${logPartitions}: an id is looked for in the partition that its message is in. If ${topic} has got more partitions since, duplicates from before may come in another partition: let it run dry for as long as duplicates can come, and begin a new dedup log`,
        );
      }
      // 2: topic.
      const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: 2, name: dedupLog }] });
      const config = new Map(resources[0]!.configEntries.map(({ configName, configValue }) => [configName, configValue]));
      expectConfig(config, 'cleanup.policy', 'delete', (value) => value === 'delete');
      expectConfig(config, 'retention.bytes', '-1', (value) => Number(value) < 0);
      expectConfig(config, 'retention.ms', `at least ${retentionMs}`, (value) => Number(value) < 0 || Number(value) >= retentionMs);
    });
  }

  function expectConfig(config: ReadonlyMap<string, string>, name: string, expected: string, fits: (value: string) => boolean): void {
    const got = config.get(name);
    if (got !== undefined && fits(got)) return;
    throw new ReceiverError(
      'broker',
      `Expected \`${name}\` of the dedup log ${dedupLog} to be ${expected}, got ${got}: ids would be forgotten early. Alter it, with kafka-configs or your platform's tool`,
    );
  }

  function expectInput(topic: string): void {
    if (input === undefined || topic === input) return;
    throw new ReceiverError(
      'broker',
      `Expected one input topic, ${input}, got ${topic} too: each needs a dedup log, and a store, of its own`,
    );
  }

  return {
    async check(topic) {
      expectInput(topic);
      if (checked?.topic !== topic || clock.now() - checked.atMs > freshMs) {
        const done = checkOnce(topic);
        checked = { topic, atMs: clock.now(), done };
        done.catch(() => {
          checked = undefined;
        });
      }
      await checked.done;
      expectInput(topic);
      input = topic;
    },

    committed: ({ topic, partition }) =>
      asking('for the committed offset', async (admin) => {
        const [answer] = await admin.fetchOffsets({ groupId, topics: [topic] });
        const offset = answer?.partitions.find((each) => each.partition === partition)?.offset;
        return offset === undefined || offset === '-1' ? undefined : offset;
      }),

    start: (partition, sinceMs) =>
      asking('for the start of the dedup log', async (admin) => {
        const offsets = await admin.fetchTopicOffsetsByTimestamp(dedupLog, Math.max(0, Math.floor(sinceMs)));
        return offsets.find((each) => each.partition === partition)!.offset;
      }),

    low: (partition) =>
      asking('for the start of the dedup log', async (admin) => {
        return (await admin.fetchTopicOffsets(dedupLog)).find((each) => each.partition === partition)!.low;
      }),

    close,
  };
}

/** Segments are a part of the retention, so that what has expired is deleted soon. Time is the broker's. */
function configOf(retentionMs: number): { name: string; value: string }[] {
  return Object.entries({
    'cleanup.policy': 'delete',
    'retention.ms': String(retentionMs),
    'retention.bytes': '-1',
    'message.timestamp.type': 'LogAppendTime',
    'segment.ms': String(Math.max(600_000, Math.floor(retentionMs / 8))),
  }).map(([name, value]) => ({ name, value }));
}
