import { realWorld, type World } from '../../../src/clock.ts';
import { expectNumber, expectOptions, ReceiverError, refuseOption } from '../../../src/errors.ts';
import type { Key, TransactionalStore } from '../../../src/store.ts';
import type { KafkaClient, TopicPartition } from './client.ts';
import type { KafkaTx } from './outgoing.ts';
import { type OwnedPartition, ownedPartition } from './partition.ts';
import { producers } from './producers.ts';
import { logReader } from './reader.ts';
import { serial } from './serial.ts';
import { topics } from './topics.ts';

export type { KafkaClient, TopicPartition } from './client.ts';
export type { KafkaTx, Publication } from './outgoing.ts';

/** Options of {@link kafkaTransactions}. All times are in milliseconds. */
export interface KafkaTransactionsOptions {
  /** `new Kafka(…)` of kafkajs. The store makes its own producers, a consumer that reads the dedup log, and an admin client. */
  readonly kafka: KafkaClient;
  /** The group whose offsets the transactions commit: that of the consumer. */
  readonly groupId: string;
  /** The topic that ids are recorded in, one for each group and input topic. It is made if it is not there. */
  readonly dedupLog: string;
  /** How long ids are remembered; at least the receiver's `retentionMs`. @default 14 days */
  readonly retentionMs?: number;
  /**
   * Begins every transactional id; the rest is group, topic and partition. The ids are what keeps a stalled worker from committing, so all
   * workers of a group must have the same prefix, and keep it. @default 'idempotent-receiver'
   */
  readonly transactionalIdPrefix?: string;
  /** A transaction that takes longer to be sent is given up, and settled. @default 30_000 */
  readonly flushTimeoutMs?: number;
  /** When the broker ends a transaction by itself. Longer than `flushTimeoutMs`, at most the broker's `transaction.max.timeout.ms`. @default 60_000 */
  readonly transactionTimeoutMs?: number;
  /** How long it is tried to take a partition over, or to settle a commit in doubt, before that is given up. @default 60_000 */
  readonly takeOverTimeoutMs?: number;
  /** The longest message that a handler may publish, headers included: `max.message.bytes` of the topic. @default 1_000_000 */
  readonly maxMessageBytes?: number;
  /** `CompressionTypes` of kafkajs. @default none */
  readonly compression?: number;
  /** `createPartitioner` of kafkajs. @default that of kafkajs */
  readonly createPartitioner?: unknown;
  /** Time and chance. @default the machine's own */
  readonly world?: World;
}

/** A store whose transactions are Kafka's. Give it to `createReceiver`, and to `kafka(receiver, { transactions })`. */
export interface KafkaTransactions extends TransactionalStore<KafkaTx> {
  readonly perPartition: true;
  readonly keepsResults: false;
  /**
   * Takes a partition over: fences whoever had it, reads the dedup log up to a record that was written after the fence, and answers the committed
   * offset (the next to read), read after the fence; undefined if there is none. Units of before don't commit any more.
   *
   * @throws ReceiverError `broker` if the dedup log does not fit, `claim-lost` if somebody else took it over meanwhile, `store`
   */
  assign(partition: TopicPartition): Promise<{ readonly offset: string | undefined }>;
  /** Gives a partition up. Nothing of it commits any more once this has resolved. */
  revoke(partition: TopicPartition): Promise<void>;
  /**
   * Lets a parked message be tried again when it comes again, with its attempts back at 0. Only the process that owns the message's partition can:
   * false in all others, and if it is not parked.
   */
  replay(key: Key): Promise<boolean>;
  /** Gives up all partitions and closes all connections. */
  close(): Promise<void>;
  /** How many ids are in memory, and how many bytes their tables take. */
  stats(): { readonly ids: number; readonly bytes: number };
}

/** A partition that comes back within this time is read from where it was left. */
const rememberedMs = 60_000;

/**
 * A transactional store that is Kafka itself: what handlers publish with `ctx.tx`, the ids of the messages that they handled, and the consumed
 * offsets commit in one Kafka transaction. The ids are in a dedup log: a topic with as many partitions as the input. An owner of a partition
 * knows the ids of that partition by heart, 25 to 40 bytes each, and reads them when it gets it.
 *
 * - Once: a message's output is in its topic once for readers with `read_committed`, whoever dies or stalls, and so for a duplicate that the
 *   producer has sent at another offset, as long as it is in the same partition. Duplicates in another partition are not recognised.
 * - One cluster, input, output and log. Effects in a database do not belong to the transaction: use an outbox there.
 * - Owners fence each other by transactional id. An owner that was fenced, or whose transaction took too long, rejects every unit with
 *   `claim-lost`, the outcome of the last one being the new owner's to know, until `assign` is called again: that is the proof of ownership.
 * - Nothing is open while handlers run: all is sent after the last handler of a unit has ended. The next unit's handlers run meanwhile, and it
 *   commits only after, and only if, this one has.
 * - A commit in doubt is settled by taking the ids over once more, which ends what is open, and reading whether the unit is in the log. If the partition
 *   had another owner by then, that one is fenced once, and has to be assigned it again.
 * - Attempts and parked messages are in the log too. Results are not kept: a receiver with `results: true` is refused.
 * - A message that kills its process is found by letting fewer and fewer messages into one unit (see `probation.ts`); the others are answered
 *   `busy`. Alone, its attempts are counted, up to `maxAttempts`. Processes that
 *   die without having finished anything are at most four more than that.
 *
 * @throws ReceiverError `invalid-option`
 */
export function kafkaTransactions(options: KafkaTransactionsOptions): KafkaTransactions {
  expectOptions(options, '`{ kafka, groupId, dedupLog }`');
  const {
    kafka,
    groupId,
    dedupLog,
    transactionalIdPrefix = 'idempotent-receiver',
    compression,
    createPartitioner,
    world = realWorld,
  } = options;
  if (typeof kafka?.producer !== 'function' || typeof kafka.consumer !== 'function' || typeof kafka.admin !== 'function')
    refuseOption('kafka', '`new Kafka(…)` of kafkajs', kafka);
  for (const [name, text] of Object.entries({ groupId, dedupLog, transactionalIdPrefix })) {
    if (typeof text !== 'string' || text === '') refuseOption(name, 'a name', text);
  }
  const retentionMs = expectNumber('retentionMs', options.retentionMs ?? 14 * 86_400_000, { atLeast: 60_000, integer: true });
  const flushTimeoutMs = expectNumber('flushTimeoutMs', options.flushTimeoutMs ?? 30_000, { atLeast: 100, integer: true });
  const transactionTimeoutMs = expectNumber('transactionTimeoutMs', options.transactionTimeoutMs ?? Math.max(60_000, flushTimeoutMs * 2), {
    atLeast: flushTimeoutMs + 1,
    integer: true,
  });
  const takeOverTimeoutMs = expectNumber('takeOverTimeoutMs', options.takeOverTimeoutMs ?? 60_000, { atLeast: 100, integer: true });
  const maxMessageBytes = expectNumber('maxMessageBytes', options.maxMessageBytes ?? 1_000_000, { atLeast: 1_000, integer: true });

  const partitions = new Map<string, OwnedPartition>();
  const reader = logReader(kafka, dedupLog, `${transactionalIdPrefix}.${groupId}.reader`, world);
  const cluster = topics(kafka, { groupId, dedupLog, retentionMs, clock: world.clock });
  const alone = serial();
  let isGiven = false;

  function open(of: TopicPartition): OwnedPartition {
    return ownedPartition({
      of,
      groupId,
      retentionMs,
      flushTimeoutMs,
      takeOverTimeoutMs,
      maxRequestBytes: Math.min(maxMessageBytes, 900_000),
      compression,
      limits: { maxMessageBytes, dedupLog },
      producers: producers(kafka, `${transactionalIdPrefix}.${groupId}.${of.topic}.${of.partition}`, {
        transactionTimeoutMs,
        createPartitioner,
        clock: world.clock,
      }),
      reader,
      topics: cluster,
      alone,
      world,
    });
  }

  function forgetRevoked(): void {
    for (const [name, { revokedAt }] of partitions) {
      if (revokedAt !== undefined && world.clock.now() - revokedAt > rememberedMs) partitions.delete(name);
    }
  }

  return {
    unitsAtOnce: 2,
    chained: true,
    perPartition: true,
    keepsResults: false,

    async unit(work, name) {
      const partition = name === undefined ? undefined : partitions.get(name);
      // A receiver would try that again for ever, and nobody would know why.
      if (!isGiven)
        throw new ReceiverError('store', 'Expected `kafka(receiver, { transactions })` to be given the same store as the receiver');
      if (!partition) throw new ReceiverError('claim-lost', `Expected the name of an assigned partition, \`topic/partition\`, got ${name}`);
      return partition.unit(work);
    },

    async assign(of) {
      isGiven = true;
      forgetRevoked();
      const name = `${of.topic}/${of.partition}`;
      const partition = partitions.get(name) ?? open(of);
      partitions.set(name, partition);
      return partition.assign();
    },

    async revoke({ topic, partition }) {
      await partitions.get(`${topic}/${partition}`)?.revoke();
    },

    async replay(key) {
      const replayed = await Promise.all([...partitions.values()].map((partition) => partition.replay(key)));
      return replayed.includes(true);
    },

    async close() {
      await Promise.allSettled([...partitions.values()].map((partition) => partition.revoke()));
      partitions.clear();
      await Promise.allSettled([reader.close(), cluster.close()]);
    },

    stats() {
      const all = [...partitions.values()].map(({ ids }) => ids);
      return { ids: all.reduce((sum, { size }) => sum + size, 0), bytes: all.reduce((sum, { bytes }) => sum + bytes, 0) };
    },
  };
}
