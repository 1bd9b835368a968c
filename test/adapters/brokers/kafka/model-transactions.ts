import type { Clock } from '../../../../src/clock.ts';
import type { ClusterModel } from './model-cluster.ts';
import { protocolError } from './model-group.ts';
import type { LogRecord, TransactionState } from './model-log.ts';

/** What a client may hold of its transactional id. */
export interface ProducerId {
  readonly transactionalId: string;
  readonly epoch: number;
}

/** A transaction of one epoch, from its first request to its markers. */
interface Transaction extends TransactionState {
  readonly partitions: Set<string>;
  /** By group and partition: what commits an offset. */
  readonly offsets: Map<string, Map<string, () => void>>;
  /** Decided: nothing is added any more, and the markers are being written. */
  decided: 'committed' | 'aborted' | undefined;
  cancel: () => void;
}

interface Entry {
  epoch: number;
  timeoutMs: number;
  open: Transaction | undefined;
  /** How the last one of this epoch has ended. */
  last: 'committed' | 'aborted' | undefined;
  /** By partition: the last batch, which is known when it is sent again. */
  sent: Map<string, { readonly sequence: number; readonly offset: number }>;
}

/** Told of what transactions come to. */
export interface TransactionWatch {
  /** It will be so, whoever dies. Its records and offsets become visible soon. */
  decided?(outcome: 'committed' | 'aborted', records: ReadonlyMap<string, readonly LogRecord[]>): void;
  /** Somebody asks for a new producer. */
  fences?(transactionalId: string): void;
  /** A producer of an older epoch was refused. */
  fenced?(id: ProducerId): void;
}

/**
 * The transaction coordinator of Kafka 4.3 as old clients meet it (facts/kafka.md, 1.2, 1.3): epochs that fence, commits that are decided first and
 * visible later, `CONCURRENT_TRANSACTIONS` meanwhile, and a time after which a transaction is aborted and its producer fenced. A transactional
 * offset commit does not look at the group's generation.
 */
export class TransactionsModel {
  readonly #clock: Clock;
  readonly #cluster: ClusterModel;
  readonly #watch: TransactionWatch;
  readonly #markerMs: () => number;
  readonly #ids = new Map<string, Entry>();

  /** `markerMs`: how long the markers of a transaction take. */
  constructor(clock: Clock, cluster: ClusterModel, markerMs: () => number, watch: TransactionWatch = {}) {
    this.#clock = clock;
    this.#cluster = cluster;
    this.#markerMs = markerMs;
    this.#watch = watch;
  }

  /** InitProducerId: ends what an older producer has begun, and fences it. */
  init(transactionalId: string, timeoutMs: number): ProducerId {
    this.#watch.fences?.(transactionalId);
    const entry = this.#ids.get(transactionalId) ?? { epoch: -1, timeoutMs, open: undefined, last: undefined, sent: new Map() };
    this.#ids.set(transactionalId, entry);
    if (entry.open) {
      // Its producer can add nothing from here on.
      if (!entry.open.decided) {
        entry.epoch++;
        this.#decide(entry, entry.open, 'aborted');
      }
      throw protocolError('CONCURRENT_TRANSACTIONS', true);
    }
    Object.assign(entry, { epoch: entry.epoch + 1, timeoutMs, last: undefined, sent: new Map() });
    return { transactionalId, epoch: entry.epoch };
  }

  addPartitions(id: ProducerId, names: readonly string[]): void {
    const { partitions } = this.#begun(id);
    for (const name of names) partitions.add(name);
  }

  addOffsets(id: ProducerId, groupId: string): void {
    const { offsets } = this.#begun(id);
    if (!offsets.has(groupId)) offsets.set(groupId, new Map());
  }

  /** TxnOffsetCommit of version 1: whoever is in the group. */
  commitOffsets(id: ProducerId, groupId: string, offsets: ReadonlyMap<string, number>): void {
    const pending = this.#check(id).open?.offsets.get(groupId);
    if (!pending) throw protocolError('INVALID_TXN_STATE');
    const group = this.#cluster.group(groupId);
    for (const [name, offset] of offsets) pending.set(name, group.commitInTransaction(name, offset));
  }

  /** Answers the offset of the first record. The same batch again is not appended again. */
  produce(id: ProducerId, name: string, sequence: number, records: readonly Pick<LogRecord, 'key' | 'value' | 'headers'>[]): number {
    const { open, sent } = this.#check(id);
    const before = sent.get(name);
    if (before?.sequence === sequence) return before.offset;
    if (!open?.partitions.has(name) || open.decided) throw protocolError('INVALID_TXN_STATE');
    const [offset] = records.map((record) => this.#cluster.append(name, { ...record, transaction: open }));
    sent.set(name, { sequence, offset: offset! });
    return offset!;
  }

  /** EndTxn. The same once more is answered as it was. */
  end(id: ProducerId, outcome: 'committed' | 'aborted'): void {
    const entry = this.#check(id);
    if (entry.open && !entry.open.decided) return this.#decide(entry, entry.open, outcome);
    if ((entry.open?.decided ?? entry.last) !== outcome) throw protocolError('INVALID_TXN_STATE');
  }

  #check(id: ProducerId): Entry {
    const entry = this.#ids.get(id.transactionalId)!;
    if (entry.epoch === id.epoch) return entry;
    this.#watch.fenced?.(id);
    throw protocolError('INVALID_PRODUCER_EPOCH');
  }

  #begun(id: ProducerId): Transaction {
    const entry = this.#check(id);
    if (entry.open?.decided) throw protocolError('CONCURRENT_TRANSACTIONS', true);
    if (entry.open) return entry.open;
    const open: Transaction = { state: 'open', partitions: new Set(), offsets: new Map(), decided: undefined, cancel: () => {} };
    entry.open = open;
    entry.last = undefined;
    open.cancel = this.#clock.after(entry.timeoutMs, () => {
      if (open.decided) return;
      entry.epoch++;
      this.#decide(entry, open, 'aborted');
    });
    return open;
  }

  #decide(entry: Entry, open: Transaction, outcome: 'committed' | 'aborted'): void {
    open.decided = outcome;
    open.cancel();
    const own = (name: string) => this.#cluster.log(name).records.filter(({ transaction }) => transaction === open);
    this.#watch.decided?.(outcome, new Map([...open.partitions].map((name) => [name, own(name)])));
    this.#clock.after(this.#markerMs(), () => {
      open.state = outcome;
      for (const name of open.partitions) this.#cluster.append(name, { key: Buffer.alloc(4), value: null, isControl: true });
      if (outcome === 'committed') for (const offsets of open.offsets.values()) for (const commit of offsets.values()) commit();
      entry.open = undefined;
      entry.last = outcome;
      this.#cluster.wake();
    });
  }
}
