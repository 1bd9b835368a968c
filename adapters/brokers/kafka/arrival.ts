import type { KafkaBatchPayload, KafkaConsumer, KafkaMessage, KafkaMessagePayload } from './client.ts';
import { offsetOf } from './delivery.ts';

/** What came of one partition: a batch, or one message. */
export interface Arrival {
  readonly topic: string;
  readonly partition: number;
  readonly messages: readonly KafkaMessage[];
  /** Where the fetch began. */
  readonly from: number;
  /** The offset behind the last record, those that are not shown included. */
  readonly reach: number;
  /** The offset that the next record of the partition gets, if it is told. */
  readonly end: number | undefined;
  heartbeat(): Promise<void>;
  pause(): () => void;
  commit(offset: string): Promise<void>;
}

export function batchArrival({ batch, heartbeat, pause, commitOffsetsIfNecessary }: KafkaBatchPayload): Arrival {
  const { topic, partition, messages } = batch;
  return {
    topic,
    partition,
    messages,
    from: offsetOf(fetchedOffset(batch)),
    reach: offsetOf(batch.lastOffset()) + 1,
    end: offsetOf(batch.highWatermark),
    heartbeat,
    pause,
    // Not the consumer's own `commitOffsets`: that tries again after the group has been joined anew, when somebody else may have gone further.
    commit: (offset) => commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition, offset }] }] }),
  };
}

export function messageArrival({ topic, partition, message, heartbeat, pause }: KafkaMessagePayload, consumer: KafkaConsumer): Arrival {
  const from = offsetOf(message.offset);
  const commit = (offset: string) => consumer.commitOffsets([{ topic, partition, offset }]);
  return { topic, partition, messages: [message], from, reach: from + 1, end: undefined, heartbeat, pause, commit };
}

/** Where the fetch began: before the first message there may be records that are not shown. kafkajs has it, and its types don't. */
function fetchedOffset(batch: KafkaBatchPayload['batch']): string {
  return (batch as { fetchedOffset?: string }).fetchedOffset ?? batch.messages[0]!.offset;
}
