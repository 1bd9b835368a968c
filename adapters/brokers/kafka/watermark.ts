import { ReceiverError, refuseOption } from '../../../src/errors.ts';
import type { TxOf } from '../../../src/guarantee.ts';
import type { Answer, TransactionalStore } from '../../../src/store.ts';
import type { Watermarks } from '../../../src/watermarks.ts';
import { checkEpoch } from './keys.ts';

/** What `kafka(receiver, { watermark })` takes: the receiver's own store, made by `watermark` or `watermarkOnly`. */
export interface WatermarkStore {
  /** A transaction has one row to advance, so that no two wait for each other. */
  readonly perPartition: true;
  readonly watermark: KafkaWatermark;
}

/** How the rows are kept. For the adapter. */
export interface KafkaWatermark {
  readonly store: Pick<TransactionalStore<unknown>, 'unit'>;
  readonly rows: Watermarks<unknown>;
  readonly topicEpoch: string;
  /** The row is all that is remembered: it is compared and set as a whole. */
  readonly exact: boolean;
  /** A row is about to be written in the transaction of `tx`. */
  advancing(tx: unknown): void;
}

export interface WatermarkOptions<Store extends TransactionalStore<any>> {
  /** The store whose transactions the effects are in. */
  readonly store: Store;
  /** The rows, in the same database: `sqliteWatermarks()`, `postgresWatermarks()`. */
  readonly rows: Watermarks<TxOf<NoInfer<Store>>>;
  /**
   * Which life of the topic the rows belong to. A topic that is deleted and made again begins at offset 0 again: with the old name all of its
   * messages would be below the watermark, and skipped. Change it whenever a topic is made again or offsets are to be handled anew. @default '1'
   */
  readonly topicEpoch?: string;
}

/**
 * A store with a watermark beside its records: a row for each group, topic and partition, advanced in the transaction of the effects by its owner
 * alone. A consumer that has lost the partition without noticing can't commit any more, and what is below the watermark is skipped without a
 * look at the records.
 *
 * ```ts
 * const store = watermark({ store: postgresStore(pool), rows: postgresWatermarks() });
 * const receiver = createReceiver({ store, … }, handler);
 * await consumer.run(kafka(receiver, { consumer, deadLetter, watermark: store }).run());
 * ```
 *
 * @throws ReceiverError `invalid-option`
 */
export function watermark<Store extends TransactionalStore<any>>(options: WatermarkOptions<Store>): Store & WatermarkStore {
  return { ...options.store, perPartition: true, watermark: { ...checked(options), exact: false, advancing() {} } };
}

/** A store that remembers offsets and nothing else. */
export interface WatermarkOnlyStore<Tx> extends TransactionalStore<Tx>, WatermarkStore {
  readonly perPartition: true;
  readonly keepsResults: false;
  /** A record that its producer sent twice has two offsets, and its handler may run twice. */
  readonly producerDuplicates: 'not recognised';
}

/** Attempts are counted for so many keys whose handlers have failed. */
const countedKeys = 10_000;

/**
 * The watermark as the only dedup: no records, no retention, one row for each group, topic and partition. Redeliveries are recognised, and they
 * alone. **What a producer sends twice may be handled twice**, for it has two offsets; use `watermark` beside records where that matters. Attempts are
 * counted in memory, so a message that kills its process is not parked.
 *
 * @throws ReceiverError `invalid-option`
 */
export function watermarkOnly<Store extends TransactionalStore<any>>(options: WatermarkOptions<Store>): WatermarkOnlyStore<TxOf<Store>> {
  type Tx = TxOf<Store>;
  const store: TransactionalStore<Tx> = options.store;
  const attempts = new Map<string, number>();
  /** By open transaction: whether its row has been written. */
  const units = new Map<unknown, { advanced: boolean }>();
  let fence = 0;
  return {
    perPartition: true,
    keepsResults: false,
    producerDuplicates: 'not recognised',
    watermark: {
      ...checked(options),
      exact: true,
      advancing(tx) {
        const unit = units.get(tx);
        if (unit) unit.advanced = true;
      },
    },
    async unit(work, partition) {
      // The row is compared with what the unit before has written, so what became of that has to be known.
      await new Promise((resolve) => setImmediate(resolve));
      return store.unit(async (unit) => {
        const state = { recorded: 0, advanced: false };
        const result = await work({
          // The row is written by the source, which nothing has caused.
          savepoint: (run, cause) => (cause ? unit.savepoint(run, cause) : unit.savepoint((tx) => within(tx, state, run))),
          async record(asks) {
            state.recorded += asks.length;
            return asks.map(
              ({ key }): Answer => ({ state: 'claimed', fence: ++fence, attempt: (attempts.get(key) ?? 0) + 1, orphaned: false }),
            );
          },
          async settle(ends) {
            for (const end of ends) {
              if (end.as === 'released' && end.counted) count(end.key);
              else if (end.as !== 'released') attempts.delete(end.key);
            }
            return ends.map(() => 'ok');
          },
        });
        if (state.recorded > 0 && !state.advanced) {
          throw new ReceiverError(
            'store',
            'Expected `kafka(receiver, { watermark })` to be given the same `watermarkOnly` store as the receiver: without it nothing would be remembered',
          );
        }
        return result;
      }, partition);
    },
  };

  async function within<R>(tx: Tx, state: { advanced: boolean }, run: (tx: Tx) => Promise<R>): Promise<R> {
    units.set(tx, state);
    try {
      return await run(tx);
    } finally {
      units.delete(tx);
    }
  }

  function count(key: string): void {
    const before = attempts.get(key) ?? 0;
    attempts.delete(key);
    attempts.set(key, before + 1);
    if (attempts.size > countedKeys) for (const oldest of attempts.keys()) return void attempts.delete(oldest);
  }
}

function checked<Store extends TransactionalStore<any>>({ store, rows, topicEpoch = '1' }: WatermarkOptions<Store>) {
  if (typeof store?.unit !== 'function') refuseOption('store', 'a store with transactions', store);
  if (typeof rows?.advance !== 'function') refuseOption('rows', 'rows such as `sqliteWatermarks()`', rows);
  return { store: store as TransactionalStore<unknown>, rows: rows as Watermarks<unknown>, topicEpoch: checkEpoch(topicEpoch) };
}
