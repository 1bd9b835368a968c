import { createHash } from 'node:crypto';
import type { SqsSendEntry } from './client.ts';

/** A message's attributes in a send request, as SQS spells them. */
export type SendAttributes = NonNullable<SqsSendEntry['MessageAttributes']>;

/** SQS takes ten attributes on a message (message metadata, Developer Guide). */
export const maxAttributes = 10;

/** SQS takes 1 MiB in a message and in a batch request; until August 2025 it was 256 KiB. */
export const maxMessageBytes = 1_048_576;

/** What counts toward the limit: the body, and each attribute's name, type and value. */
export function bytesOf(entry: Pick<SqsSendEntry, 'MessageBody' | 'MessageAttributes'>): number {
  let bytes = Buffer.byteLength(entry.MessageBody);
  for (const [name, attribute] of Object.entries(entry.MessageAttributes ?? {})) bytes += attributeBytes(name, attribute);
  return bytes;
}

export function attributeBytes(name: string, { DataType, StringValue = '', BinaryValue }: SendAttributes[string]): number {
  return Buffer.byteLength(name) + Buffer.byteLength(DataType) + Buffer.byteLength(StringValue) + (BinaryValue?.byteLength ?? 0);
}

/** Characters that SQS refuses in bodies and attributes: control characters but tab and line ends, lone surrogates, U+FFFE and U+FFFF. */
const refused = /[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/u;

export function isSendable(text: string): boolean {
  return !refused.test(text);
}

/** The text with a replacement character for each one that SQS refuses. */
export function sendable(text: string): string {
  return text.replace(new RegExp(refused, 'gu'), '\u{FFFD}');
}

/**
 * A text as MessageDeduplicationId or MessageGroupId: itself if it is 1 to 128 of the characters allowed there, else its SHA-256 in hex. Two
 * texts never share an id, but by a text that is another's digest.
 */
export function fifoId(text: string): string {
  return /^[!-~]{1,128}$/.test(text) ? text : createHash('sha256').update(text).digest('hex');
}
