import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { reasonOf } from './reasons.ts';

/**
 * npm run mutants                               changes src/ in each way that Stryker knows, one at a time, and runs its tests; writes SURVIVORS.md
 * npm run mutants -- --mutate src/lease.ts      these files only; of the others what was found last is kept
 * npm run mutants -- --report                   none: SURVIVORS.md anew, with the reasons of now
 *
 * The last line is `mutants: <n>, <n> killed, <n> survived, <n> %`. Exits 1 below 90 %.
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

/** What was found of a file, by its path. */
type Results = Record<string, { readonly sha256: string; readonly killed: number; readonly survived: readonly string[] }>;

const pathOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const digestOf = (source: string) => createHash('sha256').update(source).digest('hex').slice(0, 16);
const args = process.argv.slice(2);
const results = JSON.parse(readFileSync(pathOf('results.json'), 'utf8')) as Results;

if (!args.includes('--report')) {
  const { status } = spawnSync('stryker', ['run', '.ci/stryker.json', ...args], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
  const { files } = JSON.parse(readFileSync('.tmp/mutants.json', 'utf8')) as {
    files: Record<string, { source: string; mutants: Mutant[] }>;
  };
  for (const [file, { source, mutants }] of Object.entries(files)) {
    const lines = source.split('\n');
    const count = (...statuses: Mutant['status'][]) => mutants.filter(({ status }) => statuses.includes(status));
    const survived = count('Survived', 'NoCoverage').map((mutant) => changeOf(lines, mutant));
    results[file] = { sha256: digestOf(source), killed: count('Killed', 'Timeout').length, survived };
  }
}

const here = new Map(globSync('src/**/*.ts', { exclude: ['src/testing/**'] }).map((file) => [file, digestOf(readFileSync(file, 'utf8'))]));
const known = Object.entries(results)
  .filter(([file]) => here.has(file))
  .sort(([a], [b]) => (a < b ? -1 : 1));
const old = known.filter(([file, { sha256 }]) => here.get(file) !== sha256).map(([file]) => file);
const untried = [...here.keys()].filter((file) => !results[file]).sort();
const found = known.flatMap(([file, { survived }]) => survived.map((change) => ({ file, change, reason: reasonOf(file, change) })));
const killed = known.reduce((sum, [, each]) => sum + each.killed, 0);
const all = killed + found.length;
const percent = Math.floor((killed / all) * 1_000) / 10;
writeFileSync(pathOf('results.json'), `${JSON.stringify(Object.fromEntries(known), null, 2)}\n`);
writeFileSync(
  pathOf('SURVIVORS.md'),
  [
    '# Mutants that survive',
    '',
    `Changes of src/ that no test of src/ sees, with the reason: ${found.length} of ${all}, so the score is ${percent} %.`,
    'Made by `npm run mutants` from what it finds and from `reasons.ts`; do not edit.',
    ...(old.length > 0 ? [`Changed since they were tried: ${old.join(', ')}.`] : []),
    ...(untried.length > 0 ? [`Not tried: ${untried.join(', ')}.`] : []),
    '',
    '| file | change | why it lives |',
    '| --- | --- | --- |',
    ...found.map(({ file, change, reason }) => `| ${file} | ${code(change)} | ${reason ?? '**no reason given**'} |`),
    '',
  ].join('\n'),
);
for (const { file, change, reason } of found) if (!reason) console.log(`no reason: ${file} ${change}`);
console.log(`mutants: ${all}, ${killed} killed, ${found.length} survived, ${percent} %`);
// Of nothing there is no score.
if (!(percent >= leastPercent)) process.exitCode = 1;

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
