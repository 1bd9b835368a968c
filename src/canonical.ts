import { ReceiverError } from './errors.ts';

/** Deeper nesting than this is refused, so that a hostile payload can't overflow the stack. */
const maxDepth = 500;

/**
 * The canonical JSON text of a value: equal for equal data, whatever the order of its members.
 *
 * Follows RFC 8785 (JSON Canonicalization Scheme): members sorted by UTF-16 code units, ECMAScript numbers, no white space. What JSON
 * can't hold is refused rather than guessed: NaN, infinities, bigint, functions, symbols, lone surrogates, Map, Set and other class
 * instances without `toJSON`. Members that are `undefined` are left out, as `JSON.stringify` does.
 *
 * @throws ReceiverError `not-canonical`
 */
export function canonicalJson(value: unknown): string {
  return write(value, 0);
}

function write(value: unknown, depth: number): string {
  switch (typeof value) {
    case 'string':
      return quote(value);
    case 'number':
      if (!Number.isFinite(value)) throw notCanonical(String(value));
      // JSON has no negative zero.
      return String(value);
    case 'boolean':
      return value ? 'true' : 'false';
    case 'object':
      break;
    default:
      throw notCanonical(typeof value);
  }
  if (value === null) return 'null';
  if (depth > maxDepth) throw notCanonical(`nesting deeper than ${maxDepth}`);
  if (Array.isArray(value)) {
    let text = '[';
    for (let i = 0; i < value.length; i++) text += (i ? ',' : '') + write(value[i] ?? null, depth + 1);
    return `${text}]`;
  }
  const { toJSON } = value as { toJSON?: unknown };
  if (typeof toJSON === 'function') return write(toJSON.call(value), depth + 1);
  if (!isPlain(value)) throw notCanonical(`an instance of ${Object.getPrototypeOf(value).constructor?.name ?? 'a class'}`);
  return writeMembers(value as Record<string, unknown>, depth);
}

/** True for object literals, also those of another realm, and for objects without a prototype. */
export function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype || Object.getPrototypeOf(prototype) === null;
}

function writeMembers(object: Record<string, unknown>, depth: number): string {
  const { names, heads } = shapeOf(Object.keys(object));
  let text = '{';
  for (let i = 0; i < names.length; i++) {
    const member = object[names[i]!];
    if (member === undefined) continue;
    if (text.length > 1) text += ',';
    text += heads[i]!;
    text += write(member, depth + 1);
  }
  return `${text}}`;
}

/** What all objects with the same members have in common. */
interface Shape {
  /** As the objects have them. */
  readonly given: readonly string[];
  /** In their canonical order, by UTF-16 code units. */
  readonly names: readonly string[];
  /** Each name as it is written, with its colon. */
  readonly heads: readonly string[];
}

/** Most messages are like one before them, and to sort and quote their names would cost as much as all the rest. */
const shapes: (Shape | undefined)[] = new Array(256);

/** Longer ones are not remembered, so that no payload decides how much memory they take. */
const maxShapeLength = 1_000;

function shapeOf(given: string[]): Shape {
  const place = placeOf(given);
  const known = shapes[place];
  if (known && isSame(known.given, given)) return known;
  const names = given.toSorted();
  const heads = names.map((name) => `${quote(name, 'a member name')}:`);
  const shape = { given, names, heads };
  if (heads.reduce((sum, { length }) => sum + length, 0) <= maxShapeLength) shapes[place] = shape;
  return shape;
}

/** Where a shape is remembered. Of those that meet in one place the last one is. */
function placeOf(names: readonly string[]): number {
  let sum = names.length;
  for (let i = 0; i < names.length; i++) sum = (sum * 31 + names[i]!.length * 7 + names[i]!.charCodeAt(0)) | 0;
  return sum & 255;
}

function isSame(some: readonly string[], others: readonly string[]): boolean {
  if (some.length !== others.length) return false;
  for (let i = 0; i < some.length; i++) if (some[i] !== others[i]) return false;
  return true;
}

function quote(text: string, what = 'a string'): string {
  if (standsForItself(text)) return `"${text}"`;
  if (!text.isWellFormed()) throw notCanonical(`${what} with a lone surrogate`);
  return JSON.stringify(text);
}

/** Whether it needs no escaping and is ASCII; most texts do and are, and this look is all that they cost. */
function standsForItself(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x20 || code > 0x7e || code === 0x22 || code === 0x5c) return false;
  }
  return true;
}

function notCanonical(what: string): ReceiverError {
  return new ReceiverError('not-canonical', `Expected JSON data, got ${what}`);
}
