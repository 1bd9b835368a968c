import { expectNumber, expectOptions, refuseOption } from '../../../src/errors.ts';
import type { Receiver } from '../../../src/receiver.ts';
import type { SqsClient } from './client.ts';
import type { SqsActivity } from './link.ts';
import { isFifo } from './queue.ts';
import { maxHiddenMs } from './visibility.ts';

/** Where messages go that can't ever succeed. Nothing is dropped either way. */
export type SqsDeadLetter =
  /**
   * The queue's own RedrivePolicy moves them, after maxReceiveCount receives. On a FIFO queue the message's group waits until then; and each
   * receive of a failing message brings those behind it too and counts for them, so a small maxReceiveCount moves healthy ones away.
   */
  | 'redrive'
  /**
   * The adapter sends them there, with the reason, and deletes them when they have arrived. Needs sqs:SendMessage on it. A standard queue
   * may get a copy twice.
   */
  | { readonly queueUrl: string };

/** Options of `sqsPoller`. All times are in milliseconds. */
export interface SqsPollerOptions {
  /** `SQS` or `SQSClient` of `@aws-sdk/client-sqs`. Needs sqs:ReceiveMessage, DeleteMessage, ChangeMessageVisibility, GetQueueAttributes. */
  readonly client: SqsClient;
  /** The queue to read. It is a FIFO queue if its name ends in `.fifo`. */
  readonly queueUrl: string;
  readonly receiver: Receiver;
  /** What becomes of messages that can't ever succeed. @default 'redrive', which the queue must then have */
  readonly deadLetter?: SqsDeadLetter;
  /**
   * How long SQS hides a received message, unless it is extended: whole seconds, up to 12 h, more than the receiver's lease. The receiver's
   * heartbeat extends it. @default the queue's VisibilityTimeout, or twice the receiver's lease if that is longer
   */
  readonly visibilityMs?: number;
  /** How long a receive waits for messages: whole seconds, up to 20 s. Less costs more requests on an idle queue. @default 20_000 */
  readonly waitMs?: number;
  /** Receives under way at once. Each brings ten messages at most. @default 1 */
  readonly polls?: number;
  /** Messages received and not yet answered for, at most: those that run, those that wait, and deletes under way. @default 20 for each of `polls` */
  readonly maxInFlight?: number;
  /** A request that takes longer counts as failed; a receive gets `waitMs` on top. @default 5_000 */
  readonly requestMs?: number;
  /** The longest time after which a handled message can still come again. @default computed from the queue's settings, redrives included */
  readonly horizonMs?: number;
  /** `stop` stops the receiver too. False where several pollers share one: then stop it yourself. @default true */
  readonly stopReceiver?: boolean;
  /** Told about every failed request and refused entry. The poller goes on by itself. @default a warning of the process */
  readonly onError?: (error: unknown, during: SqsActivity) => void;
}

/** Options with their defaults. `visibilityMs` is left open until the queue has been read. */
export type CheckedOptions = Required<Omit<SqsPollerOptions, 'visibilityMs' | 'horizonMs'>> &
  Pick<SqsPollerOptions, 'visibilityMs' | 'horizonMs'>;

/** @throws ReceiverError `invalid-option` */
export function checkOptions(options: SqsPollerOptions): CheckedOptions {
  expectOptions(options, '`{ client, queueUrl, receiver }`');
  const { queueUrl, receiver, deadLetter = 'redrive', waitMs = 20_000, polls = 1, visibilityMs, horizonMs } = options;
  checkUrl('queueUrl', queueUrl);
  if (typeof receiver?.process !== 'function') refuseOption('receiver', 'a receiver made by `createReceiver`', receiver);
  if (deadLetter !== 'redrive') checkUrl('deadLetter.queueUrl', deadLetter?.queueUrl);
  if (deadLetter !== 'redrive' && deadLetter.queueUrl === queueUrl) refuseOption('deadLetter.queueUrl', 'another queue', queueUrl);
  expectSeconds('waitMs', waitMs, 0, 20_000);
  expectNumber('polls', polls, { atLeast: 1, atMost: 100, integer: true });
  const maxInFlight = expectNumber('maxInFlight', options.maxInFlight ?? 20 * polls, { atLeast: 1, atMost: 120_000, integer: true });
  // A visibility that outlives the lease could not be had.
  if (receiver.leaseMs >= maxHiddenMs)
    refuseOption('receiver.leaseMs', `less than ${maxHiddenMs}, the 12 hours for which SQS hides a message at most`, receiver.leaseMs);
  if (visibilityMs !== undefined) {
    expectSeconds('visibilityMs', visibilityMs, 1_000, maxHiddenMs);
    if (visibilityMs <= receiver.leaseMs) {
      // A message must not come back while a worker that has died without its notice still holds the claim.
      refuseOption('visibilityMs', `more than the receiver's \`leaseMs\`, which is ${receiver.leaseMs}`, visibilityMs);
    }
  }
  if (horizonMs !== undefined) expectNumber('horizonMs', horizonMs, { atLeast: 0 });
  return {
    ...options,
    deadLetter,
    waitMs,
    polls,
    maxInFlight,
    requestMs: expectNumber('requestMs', options.requestMs ?? 5_000, { atLeast: 1, atMost: 60_000 }),
    stopReceiver: options.stopReceiver ?? true,
    onError: options.onError ?? warn,
  };
}

/** The default for `visibilityMs`. Every receive asks for it, so a change of the queue's own setting does not undo what was checked. */
export function defaultVisibilityMs(queueVisibilityMs: number, leaseMs: number): number {
  return Math.min(maxHiddenMs, Math.max(queueVisibilityMs, Math.ceil((2 * leaseMs) / 1_000) * 1_000));
}

function checkUrl(name: string, url: unknown): void {
  if (typeof url !== 'string' || !URL.canParse(url)) refuseOption(name, 'the URL of a queue', url);
  if (!isFifo(url) && /\.fifo\W/.test(url)) refuseOption(name, 'the URL of a queue, with nothing behind its name', url);
}

function expectSeconds(name: string, ms: number, atLeast: number, atMost: number): void {
  expectNumber(name, ms, { atLeast, atMost });
  if (ms % 1_000 !== 0) refuseOption(name, 'whole seconds, which is what SQS counts in', ms);
}

function warn(error: unknown, during: SqsActivity): void {
  const warning = new Error(`sqs ${during}: ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`, {
    cause: error,
  });
  warning.name = 'IdempotentReceiverWarning';
  process.emitWarning(warning);
}
