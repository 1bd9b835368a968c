import { isUtf8 } from 'node:buffer';
import type { Delivery, Message } from '../../../src/message.ts';
import type { KafkaHeaders, KafkaMessage } from './client.ts';

/** What `ctx.message` is for a record of Kafka. */
export interface KafkaRecord extends Message {
  /** The value: bytes, or null for a tombstone. */
  readonly body: Buffer | null;
  readonly topic: string;
  readonly partition: number;
  readonly offset: string;
  /** The record's own key, which decides its partition. It need not be unique. */
  readonly key: Buffer | null;
}

/** A record as kafkajs handed it out. */
export interface KafkaDelivery extends Delivery {
  readonly message: KafkaRecord;
  readonly raw: KafkaMessage;
  readonly offset: number;
}

/** `orderingKey` decides what runs in order; the record's key by default. */
export function deliveryOf(
  topic: string,
  partition: number,
  raw: KafkaMessage,
  orderingKey: (record: KafkaRecord) => string | undefined,
): KafkaDelivery {
  const message: KafkaRecord = {
    id: `${topic}/${partition}/${raw.offset}`,
    body: raw.value,
    headers: headersOf(raw.headers),
    topic,
    partition,
    offset: raw.offset,
    key: raw.key,
  };
  const sentAtMs = Number(raw.timestamp);
  return { message, raw, offset: offsetOf(raw.offset), orderingKey: orderingKey(message), sentAtMs: sentAtMs > 0 ? sentAtMs : undefined };
}

/** Keys are bytes: each byte becomes one character, so that different keys never look alike. */
export function keyOrder({ key }: KafkaRecord): string | undefined {
  return key === null ? undefined : key.toString('latin1');
}

/** Offsets are 64 bits wide; at a million records a second 2^53 of them take 285 years. */
export function offsetOf(text: string): number {
  return Number(text);
}

/** Bytes as text: themselves where they are UTF-8, else in base64. A replacement character would make different ids look alike. */
function textOf(bytes: Buffer | string): string {
  if (typeof bytes === 'string') return bytes;
  return isUtf8(bytes) ? bytes.toString() : bytes.toString('base64');
}

/** Of a header that comes more than once the last one counts, as with Java's `lastHeader`. */
function headersOf(headers: KafkaHeaders = {}): Record<string, string> {
  // No prototype: a header called `__proto__` is a name like any other.
  const texts: Record<string, string> = Object.create(null);
  for (const name of Object.keys(headers)) {
    const header = headers[name];
    const value = Array.isArray(header) ? header.at(-1) : (header as Buffer | string | undefined);
    // kafkajs gives null for a header without a value.
    if (value !== undefined && value !== null) texts[name] = textOf(value);
  }
  return texts;
}
