import { ReceiverError, refuseOption } from '../../../src/errors.ts';
import type { Cause } from '../../../src/store.ts';

/** A message that a handler publishes. */
export interface Publication {
  /** Decides the partition, and with it the order. Needed unless `partition` is given: kafkajs spreads keyless messages anew on every retry. */
  readonly key?: string | Uint8Array | undefined;
  readonly value: string | Uint8Array | null;
  readonly headers?: Readonly<Record<string, string | Uint8Array | undefined>> | undefined;
  readonly partition?: number | undefined;
  /** Tells apart what one handler publishes, in their ids. Default: its place among them. */
  readonly name?: string | undefined;
}

/** `ctx.tx`: the Kafka transaction, as handlers see it. */
export interface KafkaTx {
  /**
   * Publishes a message if the transaction commits; nothing is sent before the handlers of the whole unit have ended. Two headers are added,
   * unless you set them: `message-id`, made of the key of the message that is handled and `name`, so that a handler that runs again publishes
   * the same ids; and `causation-id`, the broker's id of that message. The topic must exist: a transaction that can't be sent fails as a whole.
   *
   * @throws ReceiverError `invalid-option`
   */
  publish(topic: string, message: Publication): void;
}

/** A message as kafkajs takes it. */
export interface Outgoing {
  readonly topic: string;
  readonly bytes: number;
  readonly message: {
    readonly key: string | Buffer | null;
    readonly value: string | Buffer | null;
    readonly headers: Readonly<Record<string, string | Buffer>>;
    readonly partition?: number;
  };
}

/** About what Kafka adds to each record. */
const overheadBytes = 40;

export interface OutgoingLimits {
  readonly maxMessageBytes: number;
  readonly dedupLog: string;
}

/** Makes a message of what a handler publishes. Bytes are copied: a handler may use its buffer again. */
export function outgoingOf(topic: string, given: Publication, ordinal: number, cause: Cause | undefined, limits: OutgoingLimits): Outgoing {
  if (typeof topic !== 'string' || topic === '' || topic === limits.dedupLog) refuseOption('topic', 'the name of a topic of yours', topic);
  if (typeof given !== 'object' || given === null) refuseOption('message', '`{ key, value }`', given);
  const { key, value, partition, headers = {}, name = String(ordinal) } = given;
  if (partition === undefined ? key === undefined || key === null : !Number.isSafeInteger(partition) || partition < 0)
    refuseOption(
      partition === undefined ? 'key' : 'partition',
      'text or bytes, or `partition` a number: kafkajs would spread the message anew on every retry',
      partition ?? key,
    );
  const message = {
    key: key === undefined || key === null ? null : copyOf('key', key),
    value: value === null ? null : copyOf('value', value),
    headers: headersOf(headers, name, cause),
    ...(partition === undefined ? {} : { partition }),
  };
  let bytes = overheadBytes + sizeOf(message.key) + sizeOf(message.value);
  for (const header in message.headers) bytes += header.length + sizeOf(message.headers[header]!);
  if (bytes > limits.maxMessageBytes)
    throw new ReceiverError('invalid-option', `Expected a message of at most ${limits.maxMessageBytes} bytes for ${topic}, got ${bytes}`);
  return { topic, bytes, message };
}

function headersOf(headers: NonNullable<Publication['headers']>, name: string, cause: Cause | undefined): Record<string, string | Buffer> {
  const all: Record<string, string | Buffer> = {};
  if (cause) {
    all['message-id'] = `${cause.key}.${name}`;
    all['causation-id'] = cause.message.id;
  }
  for (const header in headers) {
    const value = headers[header];
    if (value !== undefined) all[header] = copyOf(`headers.${header}`, value);
  }
  return all;
}

/** Text as it is, bytes as a copy of their own. */
function copyOf(what: string, value: unknown): string | Buffer {
  if (typeof value === 'string') return value;
  return value instanceof Uint8Array ? Buffer.from(value) : refuseOption(what, 'text or bytes', value);
}

function sizeOf(value: string | Buffer | null): number {
  return value === null ? 0 : Buffer.byteLength(value);
}

/** In the order given, cut so that one request stays below what a broker takes, even if all of it goes to one partition. */
export function chunksOf(outgoing: readonly Outgoing[], maxBytes: number): Outgoing[][] {
  const chunks: Outgoing[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const each of outgoing) {
    if (bytes + each.bytes > maxBytes) {
      chunks.push([]);
      bytes = 0;
    }
    chunks.at(-1)!.push(each);
    bytes += each.bytes;
  }
  return chunks;
}
