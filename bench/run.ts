/** `npm run bench -- <name> [--seconds N]`: runs one benchmark, prints its table, writes `bench/results/<name>.json` and the README's figures. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { arch, cpus, platform, totalmem } from 'node:os';
import { writeGenerated } from '../test/support/generated.ts';
import type { Bench, CaseResult } from './bench.ts';
import { isMet } from './figures.ts';

const names = ['core', 'effects', 'kafka', 'postgres', 'postgres-remembered', 'redis', 'redis-remembered', 'sqlite'];
const [name, ...rest] = process.argv.slice(2);
if (!name || !names.includes(name)) {
  console.error(`Expected the name of a benchmark (${names.join(', ')}), got ${name ?? 'none'}`);
  process.exit(2);
}
const seconds = rest[0] === '--seconds' ? Number(rest[1]) : 3;
if (!(seconds > 0 && seconds <= 600)) {
  console.error(`Expected \`--seconds\` to be from 0 to 600, got ${rest[1]}`);
  process.exit(2);
}

const bench = ((await import(`./${name}.ts`)) as { bench: Bench }).bench;
const { cases, aims } = await bench({ seconds });

const machine = `${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${platform()} ${arch()}, Node ${process.versions.node}`;
const best = Math.max(...cases.map(({ perSecond }) => perSecond));
const width = Math.max(...cases.map((each) => each.name.length));
console.log(`\n${machine}\n`);
for (const each of cases) console.log(line(each));
for (const aim of aims) {
  const limit = 'atLeast' in aim ? `at least ${aim.atLeast}` : `at most ${aim.atMost}`;
  console.log(`${isMet(aim) ? 'met' : 'MISSED'}: ${aim.name}: ${aim.measured} (${limit})`);
}
const recorded = { date: new Date().toISOString(), machine, cases, aims };
const results = new URL('results/', import.meta.url);
mkdirSync(results, { recursive: true });
writeFileSync(new URL(`${name}.json`, results), `${JSON.stringify(recorded, null, 2)}\n`);
writeGenerated();

function line({ name: title, messages, perSecond }: CaseResult): string {
  const bar = '█'.repeat(Math.round((perSecond / best) * 30));
  return `${title.padEnd(width)}  ${String(perSecond).padStart(8)}/s  ${bar} (${messages} messages)`;
}
