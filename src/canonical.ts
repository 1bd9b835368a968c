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
  if (value === null) return 'null';
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
  if (depth > maxDepth) throw notCanonical(`nesting deeper than ${maxDepth}`);
  if (Array.isArray(value)) {
    let text = '[';
    for (let i = 0; i < value.length; i++) text += (i ? ',' : '') + write(value[i] ?? null, depth + 1);
    return `${text}]`;
  }
  if ('toJSON' in value && typeof value.toJSON === 'function') return write(value.toJSON(), depth + 1);
  if (!isPlain(value)) throw notCanonical(`an instance of ${Object.getPrototypeOf(value).constructor?.name ?? 'a class'}`);
  return writeMembers(value as Record<string, unknown>, depth);
}

/** True for object literals, also those of another realm, and for objects without a prototype. */
export function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype || Object.getPrototypeOf(prototype) === null;
}

function writeMembers(object: Record<string, unknown>, depth: number): string {
  let text = '';
  const names = Object.keys(object);
  sortInPlace(names);
  for (const name of names) {
    const member = object[name];
    if (member === undefined) continue;
    text += `${text ? ',' : ''}${quote(name, 'a member name')}:${write(member, depth + 1)}`;
  }
  return `{${text}}`;
}

/** Characters that stand for themselves in JSON; most texts have no others, and this test is all that they cost. */
const plain = /^[ !#-[\]-~]*$/;

function quote(text: string, what = 'a string'): string {
  if (plain.test(text)) return `"${text}"`;
  if (!text.isWellFormed()) throw notCanonical(`${what} with a lone surrogate`);
  return JSON.stringify(text);
}

/** By UTF-16 code units. Few names are put in their places without the copies that `sort` makes of any array. */
function sortInPlace(names: string[]): void {
  if (names.length > 20) {
    names.sort();
    return;
  }
  for (let i = 1; i < names.length; i++) {
    const name = names[i]!;
    let at = i;
    for (; at > 0 && names[at - 1]! > name; at--) names[at] = names[at - 1]!;
    names[at] = name;
  }
}

function notCanonical(what: string): ReceiverError {
  return new ReceiverError('not-canonical', `Expected JSON data, got ${what}`);
}
