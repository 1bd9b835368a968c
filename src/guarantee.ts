import type { StepsContext } from './effects/context.ts';
import type { Journal } from './effects/journal.ts';
import type { PublishContext } from './effects/publishing.ts';
import type { Message } from './message.ts';
import type { DedupStore, TransactionalStore } from './store.ts';

/**
 * What a handler is promised:
 *
 * - `transactional`: effect and record commit in one transaction. Once, always, for what is written through `ctx.tx`.
 * - `fenced`: the resource that the effect changes compares `ctx.fence` and refuses smaller ones, so a stalled worker changes nothing any
 *   more. A crash between effect and record asks for the effect again, with a greater fence.
 * - `leased`: duplicates are suppressed. A crash or a stalled worker between effect and record can make the effect happen again.
 */
export type Guarantee = 'transactional' | 'fenced' | 'leased';

/** What a store can promise. */
export type GuaranteeOf<Store> =
  | (Store extends TransactionalStore<any> ? 'transactional' : never)
  | (Store extends DedupStore ? 'leased' | 'fenced' : never);

/** The store's best. */
export type DefaultGuarantee<Store> = Store extends TransactionalStore<any> ? 'transactional' : 'leased';

/** What `ctx.tx` is. */
export type TxOf<Store> = Store extends TransactionalStore<infer Tx> ? Tx : never;

/** Whether a handler has `ctx.step`: where its claim is kept in a store that is a journal too, or beside its transaction. */
export type HasSteps<Store, G extends Guarantee, Aside = undefined> = G extends 'transactional'
  ? Aside extends Journal
    ? true
    : false
  : Store extends Journal
    ? true
    : false;

/** What every handler gets beside the payload. */
export interface BaseContext {
  readonly message: Message;
  /** Aborted when the claim is lost, when `handlerTimeoutMs` is over, or when the receiver stops. Its reason is a `ReceiverError`. */
  readonly signal: AbortSignal;
  /** 1 for the first try. */
  readonly attempt: number;
  /**
   * An idempotency key for one effect of this message, to pass on to others (such as Stripe's `Idempotency-Key`): the same on every
   * attempt, different for every name. 32 characters of base64url.
   */
  key(name: string): string;
  /** A UUID (version 8), the same on every attempt of this message, another for every name. Not secret. */
  uuid(name: string): string;
  /** A number in [0, 1), the same on every attempt of this message, another for every name. */
  random(name: string): number;
}

/**
 * What a handler gets beside the payload, by guarantee: `tx` in a transaction, `fence` where the handler's resource checks it; and by store:
 * steps where it is a journal; and `publish` where the receiver has an outbox.
 */
export type Context<G extends Guarantee, Tx = never, Steps extends boolean = false, Name extends string = never> = BaseContext &
  (Steps extends true ? StepsContext : unknown) &
  ([Name] extends [never] ? unknown : PublishContext<Name>) &
  (G extends 'transactional'
    ? {
        /** The open transaction. Write effects through it, and neither commit nor roll back. */
        readonly tx: Tx;
      }
    : G extends 'fenced'
      ? {
          /** Greater for each new claim of this message. The resource must refuse a write with a smaller one than it has seen. */
          readonly fence: number;
        }
      : unknown);
