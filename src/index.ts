/** The receiver: wraps a handler of messages, or any function. */

export { canonicalJson } from './canonical.ts';
/** For both, and for tests: time and chance, results, schemas. */
export { type Clock, type Random, realWorld, type World } from './clock.ts';
export { type Codec, jsonCodec } from './codec.ts';
/** Writes that the resource refuses when they come twice, late, or from somebody who was overtaken. */
export {
  type Columns,
  type FencedWrite,
  fencedWrite,
  fencedWriteSql,
  insertOnce,
  insertOnceSql,
  type UpdateIf,
  updateIf,
  updateIfSql,
} from './effects/conditional.ts';
/** Effects that happen once, step by step. */
export type { StepsContext } from './effects/context.ts';
/** For stores that keep the journal of steps: the contract. */
export type { ClaimRef, Entries, Entry, EntryWrite, Journal } from './effects/journal.ts';
/** Messages that are published in a transaction, and sent afterwards. */
export type {
  Delivered,
  Destination,
  Due,
  Fate,
  Outbox,
  OutboxAdmin,
  OutboxMessage,
  OutboxQueue,
  OutboxStats,
  Outgoing,
  ParkedMessage,
} from './effects/outbox.ts';
export type { PublishContext } from './effects/publishing.ts';
export { type Relay, type RelayOptions, relay } from './effects/relay.ts';
export { type RunSaga, type Saga, type SagaStepOptions, SagaUndone } from './effects/saga.ts';
export type { SqliteTx, SqlText, SqlTx } from './effects/sql.ts';
export type { Confirm, Confirmed, Step, StepCall, StepOptions } from './effects/step.ts';
export { type Steps, type StepsOptions, type StepsRun, steps } from './effects/steps.ts';
/** Errors. A handler throws `TerminalError` or `RetryAfter` to decide what becomes of its message. */
export { type ErrorCode, errorCodes, ReceiverError, RetryAfter, TerminalError } from './errors.ts';
/** What the receiver tells about its work. */
export type { EventBase, EventHooks, ReceiverEvents } from './events.ts';
export { type FingerprintOption, fingerprintOf } from './fingerprint.ts';
/** What a handler is promised, and what it gets. */
export type { BaseContext, Context, DefaultGuarantee, Guarantee, GuaranteeOf, HasSteps, TxOf } from './guarantee.ts';
/** What makes two deliveries the same message, and what makes two messages different. */
export { attribute, body, cloudEvent, contentHash, header, type KeyStrategy, keyOf, messageId, scope, tenant } from './key.ts';
/** For broker adapters: deliveries in, verdicts out. */
export type { DeadLetterReason, Delivery, Message, RetryReason, Source, Verdict } from './message.ts';
export { type Once, type OnceOptions, type OnceWrapper, once } from './once.ts';
export type { CommonOptions, ReceiverOptions, ReceiverOptionsBase } from './options.ts';
export { createReceiver, type Receiver } from './receiver.ts';
export type { StandardSchema } from './schema.ts';
/** For stores: the contract. */
export type * from './store.ts';
export type * from './watermarks.ts';
