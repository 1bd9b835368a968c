import type { Receiver } from '../../src/index.ts';
import type { DedupStore, TransactionalStore } from '../../src/store.ts';
import type { Link, Server } from './link.ts';
import type { Sent } from './scenario.ts';
import type { Worker } from './worker.ts';

/** A consumer in one worker: the real adapter around the real receiver. */
export interface Consumer {
  /** Until it is stopped. */
  run(): Promise<void>;
  stop(options: { readonly graceMs: number }): Promise<{ readonly abandoned: number }>;
}

/** What callers call where there is no broker: a `once` function in one worker. */
export interface Callee {
  call(payload: { id: string; payload: string }, callId: string): Promise<unknown>;
  /** How many of its runs go on, also of calls that it has answered. */
  running(): number;
}

/** A store as one worker has it. */
export type WorkerStore = DedupStore & Partial<TransactionalStore<unknown>>;

/** A message where it is now: still to be handled, put aside, or gone. */
export interface Whereabouts {
  readonly sent: Sent;
  readonly messageId: string;
  /** Order of sending within everything. */
  readonly order: number;
  readonly sentAt: number;
  state: 'queued' | 'dead-lettered' | 'acked';
  /** Moved by the broker itself, because it was received too often. */
  redriven: boolean;
  deliveries: number;
  /** Deliveries that looked like the first one. */
  firsts: number;
}

/**
 * A broker in the simulated world: a queue of SQS, a Kafka with partitions, groups, generations and offsets. The rest of the simulator knows no
 * more of a broker than this.
 */
export interface SimBroker {
  readonly server: Server;
  /** Whether messages of one group come in order. */
  readonly ordered: boolean;
  /** A client that gives up by itself: after so long a request without a reply is an error. */
  readonly requestTimeoutMs?: number;
  send(message: Sent): void;
  /** What a receiver is given in place of the store, where the broker's adapter has something to add to it. */
  dress?(worker: Worker, store: WorkerStore): WorkerStore;
  consumer(worker: Worker, link: Link, receiver: Receiver): Consumer;
  /** In place of `consumer`, where there is no broker but callers. */
  callee?(worker: Worker, callee: Callee): Consumer;
  /** Everything that was ever sent, in order. */
  readonly messages: readonly Whereabouts[];
  find(messageId: string): Whereabouts;
  /** True when no message waits for anything. */
  quiet(): boolean;
  /** Called when a message is acked, for the checks. */
  onAck: (message: Whereabouts) => void;
}
