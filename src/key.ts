import { digest } from './digest.ts';
import { ReceiverError, refuseArgument, show } from './errors.ts';
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

/** The id is in a header. Names are compared without regard to case; a name in the very same case wins. */
export function header(name: string): KeyStrategy {
  if (!isName(name)) refuseArgument('header', 'the name of a header', name);
  return ({ headers }) => find(headers, name) ?? missing(`a header ${JSON.stringify(name)}`);
}

/** The id is in a message attribute (SQS, SNS). Names are compared exactly. */
export function attribute(name: string): KeyStrategy {
  if (!isName(name)) refuseArgument('attribute', 'the name of an attribute', name);
  return ({ headers }) => own(headers, name) ?? missing(`an attribute ${JSON.stringify(name)}`);
}

/** The id is in the payload. Take ids as text: JSON numbers beyond 2^53 run into each other, so numbers are refused. */
export function body<Payload = any>(id: (payload: Payload) => string | readonly string[]): KeyStrategy {
  if (typeof id !== 'function') refuseArgument('body', 'a function such as (o) => o.id', id);
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
 * mode the payload. The two are never mixed: with one of the headers there, both have to be.
 */
export function cloudEvent(): KeyStrategy {
  return ({ headers }, payload) => {
    const inHeader = (name: string) => find(headers, `ce_${name}`) ?? find(headers, `ce-${name}`);
    let event: Readonly<Record<string, unknown>> = { source: inHeader('source'), id: inHeader('id') };
    if (event['source'] === undefined && event['id'] === undefined && isStructured(payload)) event = payload;
    return [(event['source'] ?? missing('a CloudEvent source')) as string, (event['id'] ?? missing('a CloudEvent id')) as string];
  };
}

/** Adds the tenant to a key, so that two tenants may use the same id. */
export function tenant(of: KeyStrategy, key: KeyStrategy): KeyStrategy {
  for (const each of [of, key]) if (typeof each !== 'function') refuseArgument('tenant', 'two key strategies', each);
  return (message, payload) => {
    const owner = parts(of(message, payload));
    // With their number before them, so that a tenant of two parts can't run into another tenant's id.
    return [String(owner.length), ...owner, ...parts(key(message, payload))];
  };
}

/** Adds a fixed name to a key: a queue, a topic, an epoch. */
export function scope(name: string, key: KeyStrategy): KeyStrategy {
  if (!isName(name) || typeof key !== 'function') refuseArgument('scope', 'a name and a key strategy', isName(name) ? key : name);
  return (message, payload) => [name, ...parts(key(message, payload))];
}

/** Digest of a scope and an id. @throws ReceiverError `invalid-key` */
export function keyOf(scopeName: string, id: string | readonly string[]): Key {
  const all = parts(id);
  for (const part of all) checkPart(part);
  return digest([scopeName, ...all], 32);
}

function parts(id: string | readonly string[]): readonly string[] {
  if (!Array.isArray(id)) return [id as string];
  if (id.length === 0) throw new ReceiverError('invalid-key', "Expected the message's key to have at least one part, got an empty array");
  return id;
}

/** Whether a text can be an id, or a part of one. @throws ReceiverError `invalid-key` */
export function checkPart(part: unknown): void {
  if (typeof part !== 'string') throw invalid('a string', show(part), part);
  if (part.trim() === '') throw invalid('a string that is not empty', show(part), part);
  if (!part.isWellFormed()) throw invalid('well-formed Unicode, without lone surrogates', show(part), part);
  const bytes = part.length * 3 <= maxIdBytes ? 0 : Buffer.byteLength(part);
  if (bytes > maxIdBytes) throw invalid(`at most ${maxIdBytes} bytes long`, `${show(part.slice(0, 40))}… (${bytes} bytes)`, part);
}

function invalid(expected: string, shown: string, got: unknown): ReceiverError {
  return new ReceiverError('invalid-key', `Expected the message's key to be ${expected}, got ${shown} (${typeof got})`);
}

function missing(what: string): never {
  throw new ReceiverError('invalid-key', `Expected the message to have ${what}, got none`);
}

function isName(name: unknown): boolean {
  return typeof name === 'string' && name.trim() !== '';
}

type Headers = Message['headers'];

/** Names come from producers: `constructor` and the like must not find what every object inherits. */
function own(headers: Headers, name: string): string | undefined {
  return Object.hasOwn(headers, name) ? headers[name] : undefined;
}

function find(headers: Headers, name: string): string | undefined {
  const exact = own(headers, name);
  if (exact !== undefined) return exact;
  const wanted = name.toLowerCase();
  const found = Object.keys(headers).find((each) => each.toLowerCase() === wanted && headers[each] !== undefined);
  return found === undefined ? undefined : headers[found];
}

function isStructured(payload: unknown): payload is Readonly<Record<string, unknown>> {
  return typeof payload === 'object' && payload !== null && 'specversion' in payload && typeof payload.specversion === 'string';
}
