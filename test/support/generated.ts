import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { figuresOf, type Recorded } from '../../bench/figures.ts';
import { blockOf, pageOf, readResults } from '../chaos/table.ts';
import { failureRows } from './failures.ts';
import { read, root } from './package.ts';

/** Parts of documents that are made of what tests assert, and of what runs have found. `npm run tables` writes them; readme.test.ts compares. */
export const generated: readonly { readonly path: string; make(text: string): string }[] = [
  { path: 'test/chaos/CHAOS.md', make: () => pageOf(readResults()) },
  { path: 'README.md', make: (text) => withFigures(between(between(text, 'deaths', failureTable()), 'chaos', blockOf(readResults()))) },
];

function failureTable(): string {
  const stalls = [
    'not at all, but it stalls past its lease',
    'the first to commit wins, the other finds a duplicate',
    'both handlers run; the late one is refused, and neither acks nor gives out its result',
    '`test/kill.test.ts`: "transactional: whoever commits first, the effect happens once", "leased: its outcome is refused, and the new owner keeps its own"',
  ];
  const poison = [
    'each time it handles this message',
    'parked after `maxAttempts`, if the broker marks what it delivers again, as SQS does',
    'parked after `maxAttempts`',
    '`test/transactional.test.ts`: "is counted before it runs, so that one that kills its process is parked after maxAttempts", `test/receiver.test.ts`: "is counted: a message that kills its process is parked after maxAttempts"',
  ];
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    row(['it dies', 'transactional', 'leased', 'proved by']),
    row(Array(4).fill('---')),
    failureRows(),
    row(stalls),
    row(poison),
  ].join('\n');
}

/** The figures of the last run of each benchmark that the document has marks for. */
function withFigures(text: string): string {
  const names = [...text.matchAll(/^<!-- figures of ([\w-]+): /gm)].map((match) => match[1]!);
  const figures = (name: string) => {
    const path = `bench/results/${name}.json`;
    if (!existsSync(join(root, path))) return `\`npm run bench -- ${name}\`: no figures yet.`;
    return figuresOf(name, JSON.parse(read(path)) as Recorded);
  };
  return names.reduce((made, name) => between(made, `figures of ${name}`, figures(name)), text);
}

/** A document with `block` between the marks of that name. */
function between(text: string, name: string, block: string): string {
  const [begins, ends] = [`<!-- ${name}: made by npm run tables, do not edit -->\n`, `\n<!-- /${name} -->`];
  const [from, to] = [text.indexOf(begins), text.indexOf(ends)];
  if (from < 0 || to < from) throw new Error(`Expected ${begins.trim()} and ${ends.trim()}`);
  return text.slice(0, from) + begins + block + text.slice(to);
}

/** Writes all of them. */
export function writeGenerated(): void {
  for (const { path, make } of generated) {
    const file = join(root, path);
    writeFileSync(file, make(readFileSync(file, 'utf8')));
  }
}

if (process.argv[1] === import.meta.filename) writeGenerated();
