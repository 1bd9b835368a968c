import { read } from './package.ts';

export interface Block {
  /** The file and the line of its fence, to find it again. */
  readonly where: string;
  readonly language: string;
  readonly code: string;
  /** What the HTML comments right before it say: invisible to readers. */
  readonly notes: readonly string[];
  /** The ```text block right after it, if there is one: what it prints. */
  readonly prints?: string | undefined;
}

/** The fenced code blocks of a file. */
export function blocksOf(path: string): Block[] {
  const text = read(path);
  const found = [...text.matchAll(/((?:^<!--(?:(?!-->)[\s\S])*-->[ \t]*\n\s*)*)^```(\w*)[^\n]*\n([\s\S]*?)^```[ \t]*$/gm)];
  return found.map((match, i) => {
    const after = found[i + 1];
    const end = match.index + match[0].length;
    const isRightAfter = after?.[2] === 'text' && after[1] === '' && text.slice(end, after.index).trim() === '';
    return {
      where: `${path}:${text.slice(0, match.index + match[1]!.length).split('\n').length}`,
      language: match[2]!,
      code: match[3]!,
      notes: [...match[1]!.matchAll(/<!--([\s\S]*?)-->/g)].map((note) => note[1]!.trim()),
      prints: isRightAfter ? after[3] : undefined,
    };
  });
}

/** A table's rows, heads and rule not among them, as trimmed cells. */
export type Rows = readonly (readonly string[])[];

/** The tables of the section under a heading, up to the next heading of the same or a higher level. Empty if there is no such heading. */
export function tablesUnder(path: string, heading: RegExp): Rows[] {
  const tables: string[][][] = [];
  let level = 0;
  let inTable = false;
  for (const line of proseOf(path).split('\n')) {
    const head = /^(#+)\s+(.*)$/.exec(line);
    if (head && level > 0 && head[1]!.length <= level) level = 0;
    if (head && level === 0 && heading.test(head[2]!)) level = head[1]!.length;
    const isRow = level > 0 && line.startsWith('|');
    if (isRow && !inTable) tables.push([]);
    if (isRow)
      tables.at(-1)!.push(
        line
          .slice(1, line.lastIndexOf('|'))
          .split(/(?<!\\)\|/)
          .map((cell) => cell.trim()),
      );
    inTable = isRow;
  }
  return tables.map((rows) => rows.slice(2));
}

/** The text of a file without its code blocks. */
export function proseOf(path: string): string {
  return read(path).replace(/^```[\s\S]*?^```[ \t]*$/gm, '');
}
