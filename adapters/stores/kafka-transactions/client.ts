import { causesOf } from '../../../src/errors.ts';

/** The part of a kafkajs client that the store uses: `new Kafka(…)` of kafkajs has it. */
export interface KafkaClient {
  producer(config: any): KafkaProducer;
  consumer(config: any): KafkaConsumer;
  admin(config?: any): KafkaAdmin;
}

export interface KafkaProducer {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  /** The first one of a producer asks for InitProducerId, which fences all older producers with the same transactional id. */
  transaction(): Promise<KafkaTransaction>;
}

export interface KafkaTransaction {
  sendBatch(batch: any): Promise<{ readonly topicName: string; readonly partition: number; readonly baseOffset?: string }[]>;
  sendOffsets(offsets: any): Promise<void>;
  commit(): Promise<void>;
  abort(): Promise<void>;
}

export interface KafkaConsumer {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  subscribe(subscription: any): Promise<void>;
  run(config: any): Promise<void>;
  seek(position: any): void;
  pause(topics: any): void;
  resume(topics: any): void;
}

/** A batch as kafkajs hands it to `eachBatch`. */
export interface KafkaBatch {
  readonly batch: {
    readonly partition: number;
    readonly messages: readonly KafkaRecord[];
  };
  heartbeat(): Promise<void>;
  pause(): () => void;
}

export interface KafkaRecord {
  readonly offset: string;
  readonly timestamp: string;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
}

export interface KafkaAdmin {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  listTopics(): Promise<string[]>;
  createTopics(options: any): Promise<boolean>;
  fetchTopicMetadata(options: any): Promise<{ topics: { name: string; partitions: { partitionId: number }[] }[] }>;
  describeConfigs(options: any): Promise<{ resources: { configEntries: { configName: string; configValue: string }[] }[] }>;
  fetchTopicOffsets(topic: string): Promise<{ partition: number; low: string; high: string }[]>;
  fetchTopicOffsetsByTimestamp(topic: string, timestamp?: number): Promise<{ partition: number; offset: string }[]>;
  fetchOffsets(options: any): Promise<{ topic: string; partitions: { partition: number; offset: string }[] }[]>;
}

/** A partition of the input topic. */
export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/**
 * Somebody else has taken the transactional id, or the broker has timed the transaction out; the error is the same. 90 is PRODUCER_FENCED,
 * which kafkajs has no name for.
 */
export function isFenced(error: unknown): boolean {
  return causesOf(error).some(({ type, code }) => type === 'INVALID_PRODUCER_EPOCH' || type === 'PRODUCER_FENCED' || code === 90);
}

/** The group's or the transaction's coordinator has moved or is not ready. kafkajs passes these on from `sendOffsets`, instead of waiting. */
export function isPassing(error: unknown): boolean {
  return causesOf(error).some(({ type }) => typeof type === 'string' && passing.has(type));
}

const passing = new Set([
  'CONCURRENT_TRANSACTIONS',
  'GROUP_LOAD_IN_PROGRESS',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR_FOR_GROUP',
]);
