export type { Clock, Random, World } from './clock.ts';
export { realWorld } from './clock.ts';
export { type ErrorCode, errorCodes, ReceiverError, RetryAfter, TerminalError } from './errors.ts';
export type { DeadLetterReason, Delivery, Message, RetryReason, Source, Verdict } from './message.ts';
export type { Guarantee, Receiver } from './receiver.ts';
export type * from './store.ts';
