import type { Aim, BenchResult } from './bench.ts';

/** What a run leaves in `results`. */
export interface Recorded extends BenchResult {
  /** ISO 8601. */
  readonly date: string;
  readonly machine: string;
}

/** Where the figures of a benchmark are in the README: what is between is written by `npm run bench`. */
const placeOf = (name: string) => new RegExp(`(<!-- figures ${name} -->\n\n)[^]*?(\n<!-- /figures -->)`);

/** Puts the figures of a benchmark to where `text` shows them, if it does. */
export function withFigures(text: string, name: string, recorded: Recorded): string {
  return text.replace(placeOf(name), (_, before, after) => `${before}${tableOf(name, recorded)}${after}`);
}

function tableOf(name: string, { date, machine, aims }: Recorded): string {
  const day = new Date(date).toLocaleDateString('en-GB', { day: 'numeric', month: 'long', year: 'numeric', timeZone: 'UTC' });
  return `\`npm run bench -- ${name}\`, ${day}, ${machine} ([all cases](bench/results/${name}.json)):

| | messages a second | measured | aim | |
| --- | --- | --- | --- | --- |
${aims.map(rowOf).join('\n')}
`;
}

function rowOf(aim: Aim): string {
  const rates = aim.of ? aim.of.map(text).join(' of ') : '';
  const limit = 'atLeast' in aim ? `≥ ${text(aim.atLeast)}` : `≤ ${text(aim.atMost)}`;
  return `| ${aim.name} | ${rates} | ${text(aim.measured)} | ${limit} | ${isMet(aim) ? 'met' : '**missed**'} |`;
}

export function isMet(aim: Aim): boolean {
  return 'atLeast' in aim ? aim.measured >= aim.atLeast : aim.measured <= aim.atMost;
}

const text = (number: number) => number.toLocaleString('en', { maximumFractionDigits: 3 });
