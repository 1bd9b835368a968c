import type { KafkaMessage } from '../../../../adapters/brokers/kafka/client.ts';

/** What a transaction has come to. Its records are shown when it has committed. */
export interface TransactionState {
  state: 'open' | 'committed' | 'aborted';
}

export interface LogRecord extends KafkaMessage {
  /** It takes an offset, and consumers don't see it. */
  readonly isControl: boolean;
  readonly transaction?: TransactionState | undefined;
}

/** What a fetch brings of one partition. */
export interface Fetched {
  readonly topic: string;
  readonly partition: number;
  readonly highWatermark: string;
  readonly fetchedOffset: string;
  readonly messages: LogRecord[];
  lastOffset(): string;
}

/** One partition as its broker keeps it, read by consumers with `read_committed`. */
export class PartitionLog {
  readonly records: LogRecord[] = [];
  readonly #topic: string;
  readonly #partition: number;

  constructor(topic: string, partition: number) {
    this.#topic = topic;
    this.#partition = partition;
  }

  /** Answers its offset. */
  append(record: Omit<LogRecord, 'offset'>): number {
    return this.records.push({ ...record, offset: String(this.records.length) }) - 1;
  }

  /** The last stable offset: the first one of an open transaction. */
  get stable(): number {
    const open = this.records.findIndex(({ transaction }) => transaction?.state === 'open');
    return open < 0 ? this.records.length : open;
  }

  /** Records from an offset on; those that are not shown are left out. Undefined if there are none yet. `all`: with `read_uncommitted`. */
  read(from: number, most: number, all = false): Fetched | undefined {
    const records = this.records.slice(from, Math.min(from + most, all ? this.records.length : this.stable));
    if (records.length === 0) return undefined;
    const last = records.at(-1)!.offset;
    return {
      topic: this.#topic,
      partition: this.#partition,
      highWatermark: String(this.records.length),
      fetchedOffset: String(from),
      messages: records.filter(({ isControl, transaction }) => !isControl && (all || transaction?.state !== 'aborted')),
      lastOffset: () => last,
    };
  }
}
