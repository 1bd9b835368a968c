import { digest } from './digest.ts';
import { ReceiverError } from './errors.ts';
import { fingerprintOf } from './fingerprint.ts';
import type { Message } from './message.ts';
import type { Key } from './store.ts';

/**
 * Says what makes two deliveries the same message. Gets the message and its decoded payload, which no schema has checked yet. Returns the
 * id, or several parts that are an id together. There is no default, because the broker's own id misses what producers send twice.
 */
export type KeyStrategy = (message: Message, payload: unknown) => string | readonly string[];

/** Longest id that is taken, in UTF-8 bytes. */
export const maxIdBytes = 512;

/** The id is in a header. Names are compared without regard to case. */
export function header(name: string): KeyStrategy {
  const wanted = name.toLowerCase();
  return ({ headers }) => {
    if (headers[name] !== undefined) return headers[name];
    const found = Object.keys(headers).find((each) => each.toLowerCase() === wanted);
    return found === undefined ? missing(`header ${JSON.stringify(name)}`) : (headers[found] ?? missing(`header ${JSON.stringify(name)}`));
  };
}

/** The id is in a message attribute (SQS, SNS). Names are compared exactly. */
export function attribute(name: string): KeyStrategy {
  return ({ headers }) => headers[name] ?? missing(`attribute ${JSON.stringify(name)}`);
}

/** The id is in the payload. Take ids as text: JSON numbers beyond 2^53 run into each other, so numbers are refused. */
export function body<Payload = any>(id: (payload: Payload) => string | readonly string[]): KeyStrategy {
  return (_, payload) => id(payload as Payload);
}

/**
 * The broker's own id. Covers redeliveries, and only them: a producer that sends again, a redrive and a replay make a new one, and their
 * copies are handled again.
 */
export function messageId(): KeyStrategy {
  return ({ id }) => id;
}

/** The payload itself is the id, by its canonical JSON. Messages that are rightly equal are taken for duplicates. */
export function contentHash(): KeyStrategy {
  return (_, payload) => fingerprintOf(payload);
}

/**
 * Source and id of a CloudEvent, which together are unique (CloudEvents 1.0.2, "id"). Binary mode reads `ce_id`/`ce-id` headers, structured
 * mode the payload.
 */
export function cloudEvent(): KeyStrategy {
  const idHeaders = [header('ce_id'), header('ce-id')];
  const sourceHeaders = [header('ce_source'), header('ce-source')];
  return (message, payload) => {
    const event = typeof payload === 'object' && payload !== null ? (payload as Record<string, unknown>) : {};
    const structured = typeof event['specversion'] === 'string';
    const source = firstOf(sourceHeaders, message, payload) ?? (structured ? event['source'] : undefined);
    const id = firstOf(idHeaders, message, payload) ?? (structured ? event['id'] : undefined);
    return [(source ?? missing('CloudEvent source')) as string, (id ?? missing('CloudEvent id')) as string];
  };
}

/** Adds the tenant to a key, so that two tenants may use the same id. */
export function tenant(of: KeyStrategy, key: KeyStrategy): KeyStrategy {
  return (message, payload) => [...parts(of(message, payload)), ...parts(key(message, payload))];
}

/** Adds a fixed name to a key: a queue, a topic, an epoch. */
export function scope(name: string, key: KeyStrategy): KeyStrategy {
  return (message, payload) => [name, ...parts(key(message, payload))];
}

/** Digest of a scope and an id. @throws ReceiverError `invalid-key` */
export function keyOf(scopeName: string, id: string | readonly string[]): Key {
  const all = parts(id);
  if (all.length === 0) throw invalid('at least one part', all);
  for (const part of all) checkPart(part);
  return digest([scopeName, ...all], 32);
}

function parts(id: string | readonly string[]): readonly string[] {
  return Array.isArray(id) ? id : [id as string];
}

function checkPart(part: unknown): void {
  if (typeof part !== 'string') throw invalid('a string', part);
  if (part.trim() === '') throw invalid('a string that is not empty', part);
  if (!part.isWellFormed()) throw invalid('well-formed Unicode, without lone surrogates', part);
  const bytes = part.length * 3 <= maxIdBytes ? 0 : Buffer.byteLength(part);
  if (bytes > maxIdBytes) throw invalid(`at most ${maxIdBytes} bytes long`, `${part.slice(0, 40)}… (${bytes} bytes)`);
}

function invalid(expected: string, got: unknown): ReceiverError {
  const shown = typeof got === 'string' ? JSON.stringify(got) : String(got);
  return new ReceiverError('invalid-key', `Expected the message's key to be ${expected}, got ${shown} (${typeof got})`);
}

function missing(what: string): never {
  throw new ReceiverError('invalid-key', `Expected the message to have a ${what}, got none`);
}

function firstOf(strategies: readonly KeyStrategy[], message: Message, payload: unknown): unknown {
  for (const strategy of strategies) {
    try {
      return strategy(message, payload);
    } catch {
      // Absent under this name: the next one may be there.
    }
  }
  return undefined;
}
