import type { Clock } from '../../../src/clock.ts';
import type { KafkaClient, KafkaProducer, KafkaTransaction } from './client.ts';
import { within } from './within.ts';

/** The producers of one partition. They take turns: the markers of one's transaction are written while the next is under way. */
export interface Producers {
  /** Makes new producers. From here on nothing that an older one of the same ids does can commit, and what it had begun has ended. */
  fence(): Promise<void>;
  /** A transaction on the next producer. The one before must have committed. */
  begin(): Promise<KafkaTransaction>;
  disconnect(): Promise<void>;
}

export interface ProducerSettings {
  readonly transactionTimeoutMs: number;
  readonly createPartitioner?: unknown;
  readonly clock: Clock;
}

/**
 * Two of them: with one, each transaction waits for the markers of the last, which kafkajs does by failing, logging an error, and trying again
 * after `initialRetryTime`, by default 300 ms.
 */
const takingTurns = 2;

/** kafkajs waits longer and longer for a broker that is away, so it is asked anew. */
const connectTimeoutMs = 4_000;

export function producers(kafka: KafkaClient, transactionalId: string, settings: ProducerSettings): Producers {
  let ring: KafkaProducer[] = [];
  let turn = 0;
  /** The latest attempt; those before it are not wanted any more. */
  let fences = 0;
  let opening: Promise<unknown> = Promise.resolve();
  let wanted = new AbortController();

  async function open(index: number, attempt: number, unwanted: AbortSignal): Promise<KafkaProducer> {
    const { createPartitioner, transactionTimeoutMs, clock } = settings;
    const producer = kafka.producer({
      transactionalId: `${transactionalId}.${index}`,
      transactionTimeout: transactionTimeoutMs,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      // A lost reply may be asked for again as long as the transaction lasts; the sequence number of the first try protects.
      retry: { initialRetryTime: 10, maxRetryTime: 1_000, retries: 60 },
      ...(createPartitioner === undefined ? {} : { createPartitioner }),
    });
    try {
      await within(clock, connectTimeoutMs, 'a connection', () => producer.connect(), unwanted);
      if (attempt !== fences) throw givenUp();
      // InitProducerId. An empty transaction sends nothing when it is aborted.
      await (await producer.transaction()).abort();
      return producer;
    } catch (error) {
      void close([producer]);
      throw error;
    }
  }

  return {
    async fence() {
      const attempt = ++fences;
      wanted.abort();
      wanted = new AbortController();
      void close(ring.splice(0));
      // An earlier attempt that was given up may still fence: not after this one.
      await opening;
      if (attempt !== fences) throw givenUp();
      const all = Promise.allSettled(Array.from({ length: takingTurns }, (_, index) => open(index, attempt, wanted.signal)));
      opening = all;
      const opened = await all;
      const there = opened.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
      const failed = opened.find((each) => each.status === 'rejected');
      if (failed || attempt !== fences) {
        void close(there);
        throw failed?.reason ?? givenUp();
      }
      ring = there;
    },
    begin: () => ring[turn++ % ring.length]!.transaction(),
    disconnect() {
      fences++;
      wanted.abort();
      return close(ring.splice(0));
    },
  };
}

const givenUp = () => new Error('These producers are not wanted any more');

/** Never rejects. A producer that is thrown away may be in any state. */
async function close(old: readonly KafkaProducer[]): Promise<void> {
  await Promise.allSettled(old.map((producer) => producer.disconnect()));
}
