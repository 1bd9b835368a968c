import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { reasonOf } from './reasons.ts';

/**
 * npm run mutants          changes src/ in each way that Stryker knows, one at a time, and runs its tests; writes SURVIVORS.md
 *
 * Only what has changed since the last time is run again. The last line is `mutants: <n>, <n> killed, <n> survived, <n> %`. Exits 1 below 90 %.
 */
const leastPercent = 90;

interface Position {
  readonly line: number;
  readonly column: number;
}

interface Mutant {
  readonly status: 'Killed' | 'Timeout' | 'Survived' | 'NoCoverage' | 'CompileError' | 'RuntimeError' | 'Ignored';
  readonly replacement: string;
  readonly location: { readonly start: Position; readonly end: Position };
}

const { files } = JSON.parse(readFileSync('.tmp/mutants.json', 'utf8')) as {
  files: Record<string, { source: string; mutants: Mutant[] }>;
};
let killed = 0;
const rows: string[] = [];
const unexplained: string[] = [];
let survived = 0;
for (const [file, { source, mutants }] of Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1))) {
  const lines = source.split('\n');
  for (const mutant of mutants) {
    if (mutant.status === 'Killed' || mutant.status === 'Timeout') killed++;
    if (mutant.status !== 'Survived' && mutant.status !== 'NoCoverage') continue;
    survived++;
    const change = changeOf(lines, mutant);
    const reason = reasonOf(file, change);
    if (!reason) unexplained.push(`${file}:${mutant.location.start.line} ${change}`);
    rows.push(`| ${file} | ${code(change)} | ${reason ?? '**no reason given**'} |`);
  }
}
const percent = Math.floor((killed / (killed + survived)) * 1_000) / 10;
writeFileSync(
  fileURLToPath(new URL('SURVIVORS.md', import.meta.url)),
  [
    '# Mutants that survive',
    '',
    `Changes of src/ that no test of src/ sees, with the reason: ${survived} of ${killed + survived}, so the score is ${percent} %.`,
    'Made by `npm run mutants` from what it finds and from `reasons.ts`; do not edit.',
    '',
    '| file | change | why it lives |',
    '| --- | --- | --- |',
    ...rows,
    '',
  ].join('\n'),
);
for (const each of unexplained) console.log(`no reason: ${each}`);
console.log(`mutants: ${killed + survived}, ${killed} killed, ${survived} survived, ${percent} %`);
if (percent < leastPercent) process.exitCode = 1;

/** The line as it is, with the change in it: `if (⟦a > b → a >= b⟧) …`. */
function changeOf(lines: readonly string[], { location: { start, end }, replacement }: Mutant): string {
  const first = lines[start.line - 1]!;
  const last = lines[end.line - 1]!;
  const was = start.line === end.line ? first.slice(start.column - 1, end.column - 1) : `${first.slice(start.column - 1)} …`;
  const change = `⟦${oneLine(was)} → ${oneLine(replacement) || 'nothing'}⟧`;
  return `${first.slice(0, start.column - 1)}${change}${start.line === end.line ? last.slice(end.column - 1) : ''}`.trim();
}

function oneLine(text: string): string {
  const short = text.replace(/\s+/g, ' ').trim();
  return short.length > 80 ? `${short.slice(0, 80)}…` : short;
}

function code(text: string): string {
  return `\`${text.replaceAll('|', '\\|').replaceAll('`', 'ˋ')}\``;
}
