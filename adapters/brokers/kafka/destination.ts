import { realWorld, type World } from '../../../src/clock.ts';
import type { Delivered, Destination, Outgoing } from '../../../src/effects/outbox.ts';
import { expectNumber, ReceiverError, refuseOption } from '../../../src/errors.ts';
import { type Placing, partitionOf } from './partitioner.ts';

/** The part of `new Kafka(…)` of kafkajs that a destination uses. */
export interface KafkaProducing {
  producer(config: any): {
    connect(): Promise<void>;
    disconnect(): Promise<void>;
    send(record: any): Promise<readonly { readonly partition: number; readonly errorCode: number }[]>;
  };
}

/** Options of {@link kafkaDestination}. */
export interface KafkaDestinationOptions {
  /** The header that carries the message's id, for the receiver's `key: header('message-id')`. @default 'message-id' */
  readonly idHeader?: string;
  /** What the topic takes in one message, in bytes; longer ones are refused. @default 1_000_000 */
  readonly maxMessageBytes?: number;
  /** A codec of kafkajs's `CompressionTypes`. @default none */
  readonly compression?: number;
  /** A partitioner of kafkajs, where other producers of the topic use another one. @default that of Java clients and kafkajs 2: murmur2 of the key */
  readonly createPartitioner?: () => (placing: any) => number;
  /** A send that takes longer counts as failed, its outcome unknown; milliseconds. @default 30_000 */
  readonly sendTimeoutMs?: number;
  /** Time. @default the machine's own */
  readonly world?: World;
}

/** About what Kafka adds to each record. */
const overheadBytes = 70;

/**
 * A topic as a relay's destination. `kafka` is `new Kafka(…)` of kafkajs; the producer is the destination's own: idempotent, with acks of all
 * replicas, one request at a time. The ordering key is the record's key; a message without one goes by its id, and has no key.
 *
 * A producer whose send has failed is thrown away. For kafkajs takes its sequence numbers back then, and a broker that did write the failed batch
 * takes the next one, with the same numbers, for its copy: it answers success, and writes nothing. (kafkajs warns that it was told to give up
 * some day: that is why.)
 *
 * @throws ReceiverError `invalid-option`
 */
export function kafkaDestination(kafka: KafkaProducing, topic: string, options: KafkaDestinationOptions = {}): Destination {
  if (typeof kafka?.producer !== 'function') refuseOption('kafka', '`new Kafka(…)` of kafkajs', kafka);
  if (typeof topic !== 'string' || topic === '') refuseOption('topic', 'the name of a topic', topic);
  const { idHeader = 'message-id', compression, createPartitioner, world = realWorld } = options;
  const maxMessageBytes = expectNumber('maxMessageBytes', options.maxMessageBytes ?? 1_000_000, { atLeast: 100, integer: true });
  const sendTimeoutMs = expectNumber('sendTimeoutMs', options.sendTimeoutMs ?? 30_000, { atLeast: 1 });
  let current: ReturnType<typeof openProducer> | undefined;
  let last: Promise<unknown> = Promise.resolve();

  function openProducer() {
    const inner = createPartitioner?.();
    let discarded = false;
    /** Where each message of the send that is under way has been put. */
    const placed = new Map<object, number>();
    const producer = kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      retry: { initialRetryTime: 50, maxRetryTime: 1_000, retries: 8 },
      createPartitioner: () => (placing: Placing & { message: Record }) => {
        // kafkajs asks anew with each try, also after it was disconnected.
        if (discarded) throw Object.assign(new Error('The producer was thrown away'), { retriable: false });
        const partition = inner ? inner(placing) : partitionOf(placing.message.placeBy, placing.partitionMetadata.length);
        placed.set(placing.message, partition);
        return partition;
      },
    });
    const connected = producer.connect();
    connected.catch(() => {});
    return {
      async send(messages: readonly Record[]): Promise<void> {
        await connected;
        placed.clear();
        const answers = await producer.send({ topic, acks: -1, compression, messages });
        // kafkajs skips a partition that has moved to a broker that has answered already, and says nothing.
        const written = new Set(answers.filter(({ errorCode }) => errorCode === 0).map(({ partition }) => partition));
        for (const partition of placed.values()) {
          if (!written.has(partition))
            throw new ReceiverError('broker', `Expected an answer for partition ${partition} of ${topic}, got none`);
        }
      },
      async discard(): Promise<void> {
        discarded = true;
        await producer.disconnect().catch(() => {});
      },
    };
  }

  async function write(messages: readonly Record[], signal: AbortSignal): Promise<void> {
    if (messages.length === 0) return;
    current ??= openProducer();
    const producer = current;
    try {
      await within(world, sendTimeoutMs, signal, producer.send(messages));
    } catch (error) {
      current = undefined;
      void producer.discard();
      throw error;
    }
  }

  return {
    async send(messages, signal) {
      const results: Delivered[] = [];
      const records: { readonly record: Record; readonly at: number }[] = [];
      const refusedKeys = new Set<string>();
      for (const [at, message] of messages.entries()) {
        const record = recordOf(message, idHeader);
        const bytes = sizeOf(record);
        if (message.orderingKey !== undefined && refusedKeys.has(message.orderingKey)) results[at] = behind;
        else if (bytes <= maxMessageBytes) records.push({ record, at });
        else {
          if (message.orderingKey !== undefined) refusedKeys.add(message.orderingKey);
          const error = new ReceiverError('broker', `Expected a message of at most ${maxMessageBytes} bytes for ${topic}, got ${bytes}`);
          results[at] = { state: 'refused', error };
        }
      }
      // One after another: kafkajs mixes up the sequence numbers of sends that overlap when one of them fails.
      const turn = last.then(() =>
        write(
          records.map(({ record }) => record),
          signal,
        ),
      );
      last = turn.catch(() => {});
      const outcome: Delivered = await turn.then(
        () => ({ state: 'sent' }),
        (error: unknown) => ({ state: 'failed', error }),
      );
      for (const { at } of records) results[at] = outcome;
      return results;
    },

    async close() {
      const producer = current;
      current = undefined;
      await producer?.discard();
    },
  };
}

const behind: Delivered = {
  state: 'failed',
  error: new ReceiverError('broker', 'Not sent, because an earlier message with its ordering key was refused'),
};

/** A message as kafkajs takes it, and what its partition is chosen by. */
interface Record {
  readonly key: Buffer | null;
  readonly value: Uint8Array | null;
  readonly headers: Readonly<globalThis.Record<string, string>>;
  readonly placeBy: Uint8Array;
}

function recordOf({ id, orderingKey, body, headers }: Outgoing, idHeader: string): Record {
  const key = orderingKey === undefined ? null : Buffer.from(orderingKey);
  return { key, value: body, headers: { ...headers, [idHeader]: id }, placeBy: key ?? Buffer.from(id) };
}

function sizeOf({ key, value, headers }: Record): number {
  let bytes = overheadBytes + (key?.length ?? 0) + (value?.length ?? 0);
  for (const name in headers) bytes += 8 + Buffer.byteLength(name) + Buffer.byteLength(headers[name]!);
  return bytes;
}

/** Rejects when `task` takes too long, or `signal` is aborted. The task goes on. */
async function within<T>({ clock }: World, ms: number, signal: AbortSignal, task: Promise<T>): Promise<T> {
  const limit = Promise.withResolvers<never>();
  const onAbort = () => limit.reject(new ReceiverError('stopped', 'The relay is stopping'));
  const cancel = clock.after(ms, () => limit.reject(new ReceiverError('broker', `Expected Kafka to answer within ${ms} ms`)));
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([task, limit.promise]);
  } finally {
    cancel();
    signal.removeEventListener('abort', onAbort);
    limit.promise.catch(() => {});
  }
}
