import type { TransactionalStore } from '../../../src/store.ts';

/** A partition of a topic. `Source.partition`, and with it the second argument of `unit`, is `${topic}/${partition}`. */
export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/**
 * What `kafka(receiver, { transactions })` asks of a store whose transactions also commit the consumed offsets: a Kafka transaction. The
 * adapter then commits no offset by itself.
 *
 * Calls for one partition come one after another: `assign`, any number of units, `revoke`, and so on; only `revoke` may come while one of the
 * others is under way, which then does not matter any more. Each new membership in the group (each
 * rebalance) revokes and assigns again what it keeps: in between somebody else may have had it. `assign` is not called before the first
 * batch of the partition arrives, and no unit of it is begun before `assign` has resolved. When `assign` rejects, or a unit with
 * `claim-lost`, that may be the work of a new owner, or not: `assign` is called again once a heartbeat has proved that the partition is still ours.
 *
 * Units of one partition commit in the order in which they were begun, and none commits if one before it has not.
 */
export interface OffsetTransactions {
  /**
   * A partition has been assigned: fences whoever had it, loads what is remembered, and answers the committed offset (the next one to read),
   * read after the fence; undefined if there is none.
   */
  assign(partition: TopicPartition): Promise<{ readonly offset: string | undefined }>;
  /** It has been lost or given back. Nothing of it may commit any more, units that are under way included. */
  revoke(partition: TopicPartition): Promise<void>;
}

/** What the adapter asks of the `tx` of such a store's units. */
export interface OffsetTx {
  /** The next offset to read, committed with the transaction. */
  commitOffset(next: string): void;
}

/** Such a store. Its `tx` has what `OffsetTx` has, whatever else it is. */
export type OffsetTransactionStore = OffsetTransactions & Pick<TransactionalStore<any>, 'unit'>;
