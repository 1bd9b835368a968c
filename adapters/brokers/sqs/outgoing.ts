import { ReceiverError } from '../../../src/errors.ts';
import { keyOf } from '../../../src/key.ts';
import type { SqsSendEntry } from './client.ts';
import { bytesOf, fifoId, isSendable, maxAttributes, type SendAttributes } from './entries.ts';
import { maxEntries } from './persist.ts';

/** How a sender reads its messages. */
export interface Reading<Message> {
  readonly fifo: boolean;
  readonly maxBytes: number;
  readonly keyAttribute: string;
  readonly key: (message: Message) => string;
  readonly group: ((message: Message) => string) | undefined;
  readonly body: (message: Message) => string;
  readonly attributes: ((message: Message) => Readonly<Record<string, string>>) | undefined;
}

/** A message that is ready to be sent. */
export interface Outgoing {
  /** Its place among the messages of `send`. */
  readonly index: number;
  readonly group: string | undefined;
  readonly entry: Omit<SqsSendEntry, 'Id'>;
  readonly bytes: number;
}

/** @throws ReceiverError `invalid-key`, or `broker` for what SQS would refuse */
export function outgoingOf<Message>(reading: Reading<Message>, message: Message, index: number, group: string | undefined): Outgoing {
  const id = reading.key(message);
  // What the receiver would refuse must not be sent.
  keyOf('', id);
  const entry: Outgoing['entry'] = {
    MessageBody: reading.body(message),
    MessageAttributes: attributesOf(reading, message, id),
    ...(group !== undefined && { MessageGroupId: fifoId(group) }),
    // Standard queues refuse a MessageDeduplicationId.
    ...(reading.fifo && { MessageDeduplicationId: fifoId(id) }),
  };
  refuseUnsendable(entry);
  const bytes = bytesOf(entry);
  if (bytes > reading.maxBytes) refuse(`at most ${reading.maxBytes} bytes long, attributes included`, `${bytes} bytes`);
  return { index, group, entry, bytes };
}

/** Cuts messages into batch requests, in their order: ten entries and `maxBytes` at most. */
export function chunksOf(outgoing: readonly Outgoing[], maxBytes: number): Outgoing[][] {
  const chunks: Outgoing[][] = [];
  let chunk: Outgoing[] = [];
  let bytes = 0;
  for (const each of outgoing) {
    if (chunk.length === maxEntries || (chunk.length > 0 && bytes + each.bytes > maxBytes)) {
      chunks.push(chunk);
      chunk = [];
      bytes = 0;
    }
    chunk.push(each);
    bytes += each.bytes;
  }
  return chunk.length > 0 ? [...chunks, chunk] : chunks;
}

function attributesOf<Message>(reading: Reading<Message>, message: Message, id: string): SendAttributes {
  const texts = { ...reading.attributes?.(message), [reading.keyAttribute]: id };
  return Object.fromEntries(Object.entries(texts).map(([name, StringValue]) => [name, { DataType: 'String', StringValue }]));
}

function refuseUnsendable({ MessageBody, MessageAttributes = {} }: Outgoing['entry']): void {
  const names = Object.keys(MessageAttributes);
  if (names.length > maxAttributes) refuse(`with at most ${maxAttributes} attributes, the key's included`, String(names.length));
  if (typeof MessageBody !== 'string' || MessageBody === '') refuse('with a body that is text and not empty', typeof MessageBody);
  if (!isSendable(MessageBody)) refuse('a body of characters that SQS takes', 'control characters or lone surrogates');
  for (const [name, { StringValue }] of Object.entries(MessageAttributes)) {
    if (typeof StringValue !== 'string' || StringValue === '')
      refuse(`with attribute ${name} being text and not empty`, typeof StringValue);
    if (!isSendable(StringValue)) refuse(`with attribute ${name} of characters that SQS takes`, 'control characters or lone surrogates');
  }
}

function refuse(expected: string, got: string): never {
  throw new ReceiverError('broker', `Expected a message ${expected}, got ${got}`);
}
