import { jsonCodec } from '../codec.ts';
import { describeError, ReceiverError, refuseOption, show } from '../errors.ts';
import { checkPart } from '../key.ts';

/**
 * The outbox: messages that are written in the caller's own transaction, and sent afterwards by a relay. So what is published is published if
 * and only if the transaction commits, and no broker is needed for that. A message is sent at least once, each time with the same id, by which
 * its receiver tells a copy. The contract goes on from that of `Journal`:
 *
 * 40. What `publish` has written is in the outbox if, and only if, the transaction commits.
 * 41. `take` hands the messages of one destination that are due to `send`, `limit` at most, in the order in which they were published. Until
 *     it has settled, nobody else is given a message with one of their ordering keys, nor one that was published before them with one.
 * 42. What `send` answers is written before `take` resolves: `sent` messages are gone; `again` ones, and all behind them with the same ordering
 *     key, are not due before `afterMs` has passed; `parked` ones are put aside with their reason and block nobody; `left` ones are as they were.
 * 43. If `send` rejects, or the process dies, all of them are as they were, but for 46. A message is never lost; it may be sent again.
 * 44. `take` answers how many messages it has handed over; 0 if none was due that nobody else holds.
 * 45. Parked messages stay until people replay them, which puts them behind all others as if they had just been published, or discard them.
 * 46. What kills its process can be told by its failures: messages that have failures, and those that a process takes first, have one more until
 *     `send` has answered. One that has a failure comes with `suspectsAtOnce` at most, one that has more comes alone, and no others that have failures
 *     at the same time in this process: so a message has `sharedFailures` at most by others.
 *
 * Order: that of the calls of `publish`, for one destination and one ordering key. Two transactions that are open at the same time have no
 * order of their own, unless one waits for the other, say for the row that both change.
 */
export interface Outbox<Tx, Name extends string = string> {
  /**
   * Writes messages in a transaction of yours. They are sent after it has committed, and only then.
   * @throws ReceiverError `invalid-message` if it can't be sent so, or if there is no transaction; and what the database throws
   */
  publish(tx: Tx, destination: Name, message: OutboxMessage | readonly OutboxMessage[]): Promise<void> | void;
}

/** What is published. */
export interface OutboxMessage {
  /** Text and bytes as they are, null as nothing (Kafka's tombstone), everything else as JSON. */
  readonly body: unknown;
  /** Messages of one destination with the same ordering key are sent in order: the key of a Kafka record, the group of a FIFO queue. */
  readonly orderingKey?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** By what a receiver tells a copy. @default in a receiver derived from the message that is handled, elsewhere random; kept when sent again */
  readonly id?: string | undefined;
}

/** A message on its way. */
export interface Outgoing {
  readonly id: string;
  readonly orderingKey: string | undefined;
  readonly body: Uint8Array | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** The relay's side of an outbox. */
export interface OutboxQueue<Name extends string = string> {
  readonly destinations: readonly Name[];
  /** How many takes of one destination make sense at the same time. */
  readonly takesAtOnce: number;
  /** How long `send` may take before somebody else may be given the same messages, in milliseconds. Absent: for ever. */
  readonly leaseMs?: number | undefined;
  /** See 41-44, 46. */
  take(destination: Name, limit: number, send: Send): Promise<number>;
  /** Calls `wake` whenever something was published, until `signal` is aborted. Rejects when it can't any more. */
  listen?(wake: (destination: string) => void, signal: AbortSignal): Promise<void>;
}

export const suspectsAtOnce = 30;
export const sharedFailures = 2;

/** Sends what was taken, and says what is to become of it. */
export type Send = (messages: readonly Due[]) => Promise<readonly Fate[]>;

/** A message that is to be sent now. */
export interface Due extends Outgoing {
  /** How often it has failed for reasons of its own, or may have, before. */
  readonly failures: number;
}

/** What becomes of a message that was taken. `counted`: it has failed for a reason of its own. See 42. */
export type Fate =
  | { readonly as: 'sent' }
  | { readonly as: 'left' }
  | { readonly as: 'again'; readonly afterMs: number; readonly counted: boolean }
  | { readonly as: 'parked'; readonly reason: string };

/** Where a relay sends messages to. */
export interface Destination {
  /**
   * Sends messages, and answers for each in the order given. Messages with the same ordering key are sent in order, and none after one that
   * was not sent. After `signal` is aborted, because the relay stops or the messages' lease ends, it answers soon. May reject: it is not known then what has been sent.
   */
  send(messages: readonly Outgoing[], signal: AbortSignal): Promise<readonly Delivered[]>;
  /** Ends connections of its own. */
  close?(): Promise<void>;
}

/** What has become of a message. */
export type Delivered =
  | { readonly state: 'sent' }
  /** It was not sent, or that is not known. */
  | { readonly state: 'failed'; readonly error: unknown }
  /** It can't be sent as it is, for a reason that is certainly its own: too long, say. */
  | { readonly state: 'refused'; readonly error: unknown };

/** What people may do with an outbox. */
export interface OutboxAdmin {
  /** One row for each destination that has messages. `oldestMs`: age of the oldest one that waits. */
  stats(): Promise<readonly OutboxStats[]>;
  /** Parked messages, the oldest first; `after` is the number of the last one seen. */
  listParked(options: { readonly limit: number; readonly after?: string | undefined }): Promise<readonly ParkedMessage[]>;
  /** Has a parked message sent once more, behind all others, with its failures back at 0. False if it is not parked. */
  replay(number: string): Promise<boolean>;
  /** Deletes a parked message. False if it is not parked. */
  discard(number: string): Promise<boolean>;
}

export interface OutboxStats {
  readonly destination: string;
  readonly waiting: number;
  readonly parked: number;
  readonly oldestMs: number;
}

/** A message that was given up. */
export interface ParkedMessage extends Outgoing {
  /** By which it is replayed or discarded. */
  readonly number: string;
  readonly destination: string;
  readonly failures: number;
  readonly reason: string;
  /** Since it was parked, in milliseconds. */
  readonly ageMs: number;
}

/** Checks messages, and encodes them. @throws ReceiverError `invalid-message` */
export function outgoingOf<Name extends string>(
  destinations: readonly Name[],
  destination: Name,
  given: OutboxMessage | readonly OutboxMessage[],
  newId: () => string,
): Outgoing[] {
  if (!destinations.includes(destination)) throw invalid(`a destination of this outbox (${destinations.join(', ')})`, show(destination));
  return (Array.isArray(given) ? given : [given]).map((message: OutboxMessage) => {
    if (typeof message !== 'object' || message === null) throw invalid('a message `{ body, … }`', show(message));
    const { id = newId(), orderingKey, headers = {} } = message;
    checkText('an id', id);
    if (orderingKey !== undefined) checkText('an ordering key', orderingKey);
    for (const [name, value] of Object.entries(headers)) {
      if (name === '' || typeof value !== 'string') throw invalid(`header ${show(name)} to be text`, show(value));
    }
    return { id, orderingKey, headers, body: bytesOf(message.body) };
  });
}

/** What a receiver would refuse must not be published; and Postgres has no NUL in text. */
function checkText(what: string, text: unknown): void {
  try {
    checkPart(text);
  } catch (cause) {
    throw invalid(`${what} that can be a key`, describeError(cause));
  }
  if ((text as string).includes('\0')) throw invalid(`${what} without NUL`, show(text));
}

function bytesOf(body: unknown): Uint8Array | null {
  if (body === null) return body;
  // A copy: the caller may use its buffer again before the driver has sent it.
  if (body instanceof Uint8Array) return Buffer.from(body);
  if (typeof body === 'string') {
    if (!body.isWellFormed()) throw invalid('a body of well-formed text', 'a lone surrogate');
    return Buffer.from(body);
  }
  if (body === undefined || typeof body === 'function') throw invalid('a body', show(body));
  try {
    return Buffer.from(jsonCodec.encode(body));
  } catch (cause) {
    throw invalid('a body that is text, bytes, null or can be JSON', describeError(cause));
  }
}

function invalid(expected: string, got: string): ReceiverError {
  return new ReceiverError('invalid-message', `Expected ${expected}, got ${got}`);
}

/** Checks the option that says where an outbox may send to: a name that nobody knows would wait for ever. @throws ReceiverError `invalid-option` */
export function checkDestinations(names: unknown): void {
  const fits = Array.isArray(names) && names.length > 0 && new Set(names).size === names.length;
  if (!fits) refuseOption('destinations', 'a list of names', names);
  for (const name of names as unknown[]) {
    if (typeof name !== 'string' || !/^[\w.:/-]{1,200}$/.test(name))
      refuseOption('destinations', 'names of 1 to 200 letters, digits and _ . : / -', name);
  }
}

/** There has to be a transaction, or message and effect would not commit together. */
export function noTransaction(): ReceiverError {
  return invalid(
    'a transaction that is open',
    'a connection or pool without one: the message would be published whether or not your own work commits',
  );
}
