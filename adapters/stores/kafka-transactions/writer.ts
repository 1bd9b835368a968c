import { type Clock, sleep } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import { isPassing, type KafkaTransaction, type TopicPartition } from './client.ts';
import { chunksOf } from './outgoing.ts';
import type { Producers } from './producers.ts';
import { encodeRecord, type LogRecord } from './record.ts';
import type { Changes } from './unit.ts';
import { within } from './within.ts';

/** Writes the transactions of one partition: what handlers have published, a record of the dedup log, and the offset. */
export interface Writer {
  /** Resolves when the transaction has committed, with where the next record of the log will be, at the earliest. */
  write(record: LogRecord, writing?: Writing): Promise<string | undefined>;
  /** Aborted when the present producers are thrown away: nothing commits any more that was begun on them, and has not been asked to commit. */
  readonly present: AbortSignal;
  /** See {@link Producers.fence}. */
  fence(limitMs: number): Promise<void>;
}

export interface Writing {
  readonly changes?: Changes | undefined;
  readonly place?: Place;
  /** Asked when its turn has come. If it throws, the transaction is aborted. */
  readonly check?: () => void;
  readonly limitMs?: number;
}

/** When a transaction may commit. It is sent before. */
export interface Place {
  readonly turn: Promise<void>;
  /** All but the commit has been done. */
  passed(): void;
}

export const now: Place = { turn: Promise.resolve(), passed() {} };

export interface WriterOptions {
  readonly of: TopicPartition;
  readonly groupId: string;
  readonly dedupLog: string;
  readonly producers: Producers;
  readonly flushTimeoutMs: number;
  readonly maxRequestBytes: number;
  readonly compression: number | undefined;
  readonly clock: Clock;
}

export function writer({ of, groupId, dedupLog, producers, flushTimeoutMs, maxRequestBytes, compression, clock }: WriterOptions): Writer {
  let present = new AbortController();

  function sendAll(tx: KafkaTransaction, list: readonly { readonly topic: string; readonly message: unknown }[]) {
    const byTopic = Map.groupBy(list, ({ topic }) => topic);
    const topicMessages = [...byTopic].map(([topic, each]) => ({ topic, messages: each.map(({ message }) => message) }));
    return tx.sendBatch({ acks: -1, topicMessages, ...(compression === undefined ? {} : { compression }) });
  }

  async function sendOffset(tx: KafkaTransaction, offset: string, isLate: () => boolean): Promise<void> {
    const offsets = { consumerGroupId: groupId, topics: [{ topic: of.topic, partitions: [{ partition: of.partition, offset }] }] };
    for (let waitMs = 10; ; waitMs = Math.min(waitMs * 2, 500)) {
      try {
        return await tx.sendOffsets(offsets);
      } catch (error) {
        if (!isPassing(error) || isLate()) throw error;
        await sleep(clock, waitMs);
      }
    }
  }

  return {
    get present() {
      return present.signal;
    },

    fence(limitMs) {
      present.abort();
      present = new AbortController();
      return within(clock, limitMs, 'new producers', () => producers.fence());
    },

    write(record, { changes, place = now, check = () => {}, limitMs = flushTimeoutMs } = {}) {
      const log = { topic: dedupLog, message: { key: `${groupId}/${of.topic}`, value: encodeRecord(record), partition: of.partition } };
      const send = async (isLate: () => boolean): Promise<string | undefined> => {
        const step = <T>(run: () => Promise<T>): Promise<T> => {
          if (isLate()) throw new ReceiverError('store', 'The transaction was given up');
          return run();
        };
        const tx = await step(() => producers.begin());
        const chunks = chunksOf(changes?.outgoing ?? [], maxRequestBytes);
        for (const chunk of chunks.slice(0, -1)) await step(() => sendAll(tx, chunk));
        const sent = await step(() => sendAll(tx, [...(chunks.at(-1) ?? []), log]));
        if (changes?.offset !== undefined) await step(() => sendOffset(tx, changes.offset!, isLate));
        place.passed();
        await place.turn;
        try {
          check();
        } catch (error) {
          // Else readers of what it has sent would wait until the broker times it out.
          await step(() => tx.abort());
          throw error;
        }
        await step(() => tx.commit());
        const at = sent.find(({ topicName, partition }) => topicName === log.topic && partition === of.partition)?.baseOffset;
        return at === undefined ? undefined : String(BigInt(at) + 1n);
      };
      return within(clock, limitMs, 'a transaction to be sent', send, present.signal);
    },
  };
}
