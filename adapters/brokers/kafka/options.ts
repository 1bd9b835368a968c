import { expectNumber, expectOptions, refuseOption } from '../../../src/errors.ts';
import type { Receiver } from '../../../src/receiver.ts';
import type { KafkaAdmin, KafkaConsumer } from './client.ts';
import type { KafkaDeadLetterOption } from './dead-letter.ts';
import { type KafkaRecord, keyOrder } from './delivery.ts';
import type { KafkaActivity } from './link.ts';
import type { OffsetTransactionStore } from './transactions.ts';
import type { WatermarkStore } from './watermark.ts';

/** Options of `kafka`. All times are in milliseconds. */
export interface KafkaOptions {
  /** The consumer that is going to run, of kafkajs. Its events tell what is assigned, and what is lost. */
  readonly consumer: KafkaConsumer;
  /** What becomes of messages that can't ever succeed. There is no default. */
  readonly deadLetter: KafkaDeadLetterOption;
  /**
   * What is handled in order: messages with the same record key, all of a partition, nothing, or what a function answers (undefined: no order).
   * Messages without a record key have no order. @default 'key'
   */
  readonly order?: 'key' | 'partition' | 'none' | ((record: KafkaRecord) => string | undefined);
  /** Messages of one partition that the receiver has at once: claimed together, extended together. @default 500 */
  readonly maxInFlight?: number;
  /**
   * Offsets between the first one that is not done and the last one taken, in one partition. When it is reached the partition is paused until half
   * of it is free. After a crash so many messages come again and are known. @default 10_000
   */
  readonly window?: number;
  /** `partitionsConsumedConcurrently` of `run()`. @default 1, as kafkajs's */
  readonly partitionsConsumedConcurrently?: number;
  /** A store whose transactions commit the consumed offsets: Kafka transactions. The receiver's own store. */
  readonly transactions?: OffsetTransactionStore;
  /** The receiver's own store, if it is one of `watermark` or `watermarkOnly`: progress in a row for each partition, in the transactions of the effects. */
  readonly watermark?: WatermarkStore;
  /**
   * The consumer's `sessionTimeout`, which kafkajs does not tell. The receiver's `leaseMs` must not be longer: the messages of a dead worker
   * would wait for its claims after its partitions have moved. @default 30_000, as kafkajs's
   */
  readonly sessionTimeoutMs?: number;
  /** A connected admin client: reads how long the topics keep messages, and refuses a receiver that would forget sooner. */
  readonly admin?: KafkaAdmin;
  /** The longest time after which a handled message can still come again. @default with `admin`, the topic's retention; else unchecked */
  readonly horizonMs?: number;
  /** `stop` stops the receiver too. False where several consumers share one: then stop it yourself. @default true */
  readonly stopReceiver?: boolean;
  /** Told about everything that goes wrong and is tried again, but for what handlers throw: see the receiver's hooks. @default a warning of the process */
  readonly onError?: (error: unknown, during: KafkaActivity) => void;
}

export interface CheckedOptions extends KafkaOptions {
  readonly orderingKey: (record: KafkaRecord) => string | undefined;
  readonly maxInFlight: number;
  readonly window: number;
  readonly partitionsConsumedConcurrently: number;
  readonly stopReceiver: boolean;
  readonly onError: (error: unknown, during: KafkaActivity) => void;
}

const orders = { key: keyOrder, partition: () => '', none: () => undefined } as const;

/** @throws ReceiverError `invalid-option` */
export function checkOptions(receiver: Receiver, options: KafkaOptions): CheckedOptions {
  if (typeof receiver?.process !== 'function') refuseOption('receiver', 'a receiver made by `createReceiver`', receiver);
  expectOptions(options, '`{ consumer, deadLetter }`');
  const { consumer, deadLetter, order = 'key', transactions, watermark, horizonMs, onError = warn } = options;
  if (typeof consumer?.on !== 'function' || typeof consumer.commitOffsets !== 'function')
    refuseOption('consumer', 'the consumer of kafkajs that is going to run', consumer);
  const topic = typeof deadLetter === 'object' && typeof deadLetter?.producer?.send === 'function' ? deadLetter.topic : undefined;
  if (deadLetter !== 'drop' && typeof deadLetter !== 'function' && (typeof topic !== 'string' || topic === ''))
    refuseOption('deadLetter', "`{ producer, topic }`, a function, or 'drop'", deadLetter);
  if (typeof order !== 'function' && !Object.hasOwn(orders, order))
    refuseOption('order', "'key', 'partition', 'none' or a function", order);
  if (transactions && watermark) refuseOption('watermark', 'absent beside `transactions`, which commit the offsets', watermark);
  if (watermark && typeof watermark.watermark?.advancing !== 'function')
    refuseOption('watermark', 'the receiver’s store, made by `watermark` or `watermarkOnly`', watermark);
  const inTransactions = transactions ? 'transactions' : watermark ? 'watermark' : undefined;
  if (inTransactions && receiver.guarantee !== 'transactional')
    refuseOption(
      inTransactions,
      `absent, because the receiver is ${receiver.guarantee}: nothing of it is in transactions`,
      options[inTransactions],
    );
  if (typeof onError !== 'function') refuseOption('onError', 'a function', onError);
  const sessionTimeoutMs = expectNumber('sessionTimeoutMs', options.sessionTimeoutMs ?? 30_000, { atLeast: 1 });
  if (sessionTimeoutMs < receiver.leaseMs)
    refuseOption('sessionTimeoutMs', `at least the receiver's \`leaseMs\`, which is ${receiver.leaseMs}`, sessionTimeoutMs);
  if (horizonMs !== undefined) receiver.requireRetention(expectNumber('horizonMs', horizonMs, { atLeast: 0 }), 'option `horizonMs`');
  const count = { atLeast: 1, integer: true };
  return {
    ...options,
    orderingKey: typeof order === 'function' ? order : orders[order],
    maxInFlight: expectNumber('maxInFlight', options.maxInFlight ?? 500, count),
    window: expectNumber('window', options.window ?? 10_000, count),
    partitionsConsumedConcurrently: expectNumber('partitionsConsumedConcurrently', options.partitionsConsumedConcurrently ?? 1, count),
    stopReceiver: options.stopReceiver ?? true,
    onError,
  };
}

function warn(error: unknown, during: KafkaActivity): void {
  const warning = new Error(`kafka ${during}: ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`, {
    cause: error,
  });
  warning.name = 'IdempotentReceiverWarning';
  process.emitWarning(warning);
}
