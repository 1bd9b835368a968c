import { causesOf } from '../../../src/errors.ts';

/** A record as kafkajs gives it to `eachBatch` and `eachMessage`: what the adapter reads of it. */
export interface KafkaMessage {
  readonly key: Buffer | null;
  /** Null: a tombstone. */
  readonly value: Buffer | null;
  readonly timestamp: string;
  readonly offset: string;
  readonly headers?: KafkaHeaders | undefined;
}

/** A header that comes more than once is an array. */
export type KafkaHeaders = Readonly<Record<string, Buffer | string | (Buffer | string)[] | undefined>>;

export interface KafkaBatch {
  readonly topic: string;
  readonly partition: number;
  /** The offset that the next record of the partition will get. */
  readonly highWatermark: string;
  readonly messages: KafkaMessage[];
  /** Records that are not shown (of transactions, compacted away) included. */
  lastOffset(): string;
}

/** kafkajs's argument of `eachBatch`: what the adapter uses of it. */
export interface KafkaBatchPayload {
  readonly batch: KafkaBatch;
  resolveOffset(offset: string): void;
  heartbeat(): Promise<void>;
  pause(): () => void;
  commitOffsetsIfNecessary(offsets?: KafkaOffsets): Promise<void>;
  uncommittedOffsets(): KafkaOffsets;
}

/** kafkajs's argument of `eachMessage`: what the adapter uses of it. */
export interface KafkaMessagePayload {
  readonly topic: string;
  readonly partition: number;
  readonly message: KafkaMessage;
  heartbeat(): Promise<void>;
  pause(): () => void;
}

export interface KafkaOffsets {
  topics: { topic: string; partitions: { partition: number; offset: string }[] }[];
}

/** A `Consumer` of kafkajs, or anything that has the methods used here. */
export interface KafkaConsumer {
  on(eventName: never, listener: (event: any) => void): () => void;
  seek(to: { topic: string; partition: number; offset: string }): void;
  commitOffsets(offsets: { topic: string; partition: number; offset: string }[]): Promise<void>;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  run(config: KafkaRunConfig): Promise<void>;
}

/** A connected `Producer` of kafkajs, or anything that has its `send`. */
export interface KafkaProducer {
  send(record: {
    topic: string;
    acks: number;
    messages: {
      key: Buffer | null;
      value: Buffer | null;
      headers: Record<string, Buffer | string | (Buffer | string)[]>;
    }[];
  }): Promise<unknown>;
}

/** A connected `Admin` of kafkajs: what the adapter reads the retention by. */
export interface KafkaAdmin {
  describeCluster(): Promise<{ brokers: { nodeId: number }[] }>;
  describeConfigs(request: { resources: { type: any; name: string; configNames?: string[] }[]; includeSynonyms: boolean }): Promise<{
    resources: { resourceName: string; resourceType: number; configEntries: { configName: string; configValue: string }[] }[];
  }>;
}

/** What `consumer.run` takes. */
export interface KafkaRunConfig {
  readonly autoCommit: false;
  readonly eachBatchAutoResolve: false;
  readonly partitionsConsumedConcurrently: number;
  readonly eachBatch: (payload: KafkaBatchPayload) => Promise<void>;
}

/** Kafka's error type of an error of kafkajs, such as `UNKNOWN_MEMBER_ID`. */
export function kafkaErrorType(error: unknown): string | undefined {
  const { type } = (error ?? {}) as { type?: unknown };
  return typeof type === 'string' ? type : undefined;
}

/** Whether kafkajs starts a consumer again after a crash by this error, unless its `retry.restartOnFailure` says no: as its 2.2.4 tells it. */
export function restartsAfter(error: unknown): boolean {
  const causes = causesOf(error);
  return causes[0]?.['name'] === 'KafkaJSNumberOfRetriesExceeded' || causes.at(-1)?.['retriable'] === true;
}

/** Hears a consumer's events by their names, which kafkajs's types keep to themselves. What it answers ends that. */
export function eventsOf(consumer: KafkaConsumer): (name: string, listener: (event: { payload: any }) => void) => () => void {
  return consumer.on.bind(consumer) as ReturnType<typeof eventsOf>;
}
