/*
 * How lists get into a statement: as one text each, an array as Postgres writes it. Whatever is not a number is in hex, so a list is nothing but hex,
 * digits, commas and braces, and may stand in the text of a statement as well as for a parameter; and pg has nothing to escape.
 */

export const hexOf = (bytes: Buffer): string => bytes.toString('hex');

/** Text as the table holds it: bytes in UTF-8. */
export const hexOfText = (text: string): string => hexOf(Buffer.from(text, 'utf8'));

/** A list of what is in hex. */
export function hexList<T>(items: readonly T[], hexOfItem: (item: T) => string | undefined): string {
  return `{${items.map((item) => shown(hexOfItem(item))).join(',')}}`;
}

const shown = (hex: string | undefined): string => (hex === undefined ? 'NULL' : hex === '' ? '""' : hex);

export function numberList<T>(items: readonly T[], numberOf: (item: T) => number): string {
  return `{${items.map((item) => Number(numberOf(item))).join(',')}}`;
}

/** Parameters of a function: from `$1`. */
export const parameters = (count: number): string => Array.from({ length: count }, (_, i) => `$${i + 1}::text`).join(', ');

/** The same as part of the statement's text. */
export const inText = (lists: readonly string[]): string => lists.map((list) => `'${list}'::text`).join(', ');
