import type { World } from './clock.ts';
import type { Delivery, Message, Source, Verdict } from './message.ts';
import type { Key } from './store.ts';

/** What a handler is promised. See the README's table. */
export type Guarantee = 'transactional' | 'fenced' | 'leased';

/** An idempotent receiver around a handler. Broker adapters give it deliveries and obey its verdicts. */
export interface Receiver<G extends Guarantee = Guarantee> {
  readonly guarantee: G;
  readonly scope: string;
  readonly leaseMs: number;
  readonly retentionMs: number;
  /** Time and chance, for broker adapters too: `clock.now()` is what `Delivery.heldUntil` is measured in. */
  readonly world: World;
  /**
   * Handles deliveries, and answers in the order given. Never rejects for what a handler, a message or the store does: that is
   * what verdicts are for. Deliveries of concurrent calls share the receiver's `concurrency`.
   */
  process<D extends Delivery>(deliveries: readonly D[], source?: Source<D>): Promise<Verdict[]>;
  /** Resolves with true as soon as it makes sense to fetch more: at once, or after a pause while the store is down. False if `signal` was aborted or the receiver has been stopped. */
  ready(signal?: AbortSignal): Promise<boolean>;
  /**
   * Broker adapters call this at start with the longest time after which the broker can still redeliver.
   * @throws ReceiverError `retention-too-short` if the store would forget sooner. `where` says which settings the time comes from.
   */
  requireRetention(horizonMs: number, where: string): void;
  /** The key under which a message is remembered, for `StoreAdmin`. @throws ReceiverError `invalid-key` */
  keyOf(message: Message): Key;
  /**
   * Takes no new work, gives back what has not been started, lets running handlers finish for `graceMs` (default 10,000) and then
   * aborts their signals. Resolves when nothing is left: no handler, no claim, no timer. `abandoned` counts handlers that ignored
   * their signal; their claims end with their leases.
   */
  stop(options?: { readonly graceMs?: number }): Promise<{ readonly abandoned: number }>;
}
