import type { KafkaClient, KafkaProducer, KafkaTransaction } from './client.ts';

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
}

/**
 * Two of them: with one, each transaction waits for the markers of the last, which kafkajs does by failing, logging an error, and trying again
 * after `initialRetryTime`, by default 300 ms.
 */
const takingTurns = 2;

export function producers(kafka: KafkaClient, transactionalId: string, settings: ProducerSettings): Producers {
  let ring: KafkaProducer[] = [];
  let turn = 0;
  let fences = 0;

  async function open(index: number): Promise<KafkaProducer> {
    const { createPartitioner, transactionTimeoutMs } = settings;
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
      await producer.connect();
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
      const mine = ++fences;
      void close(ring.splice(0));
      const opened = await Promise.allSettled(Array.from({ length: takingTurns }, (_, index) => open(index)));
      const there = opened.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
      const failed = opened.find((each) => each.status === 'rejected');
      // One that took so long that it was given up must not take the place of its successor.
      if (failed || mine !== fences) {
        void close(there);
        throw failed?.reason ?? new Error('Expected producers in time');
      }
      ring = there;
    },
    begin: () => ring[turn++ % ring.length]!.transaction(),
    disconnect: () => close(ring.splice(0)),
  };
}

/** Never rejects. A producer that is thrown away may be in any state. */
async function close(old: readonly KafkaProducer[]): Promise<void> {
  await Promise.allSettled(old.map((producer) => producer.disconnect()));
}
