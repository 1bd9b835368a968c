import type { Aim, BenchResult } from './bench.ts';

/** What a run leaves in `results`. */
export interface Recorded extends BenchResult {
  /** ISO 8601. */
  readonly date: string;
  readonly machine: string;
}

/** What the README shows of a run: its aims. */
export function figuresOf(name: string, { date, machine, aims }: Recorded): string {
  const day = new Date(date).toLocaleDateString('en-GB', { day: 'numeric', month: 'long', year: 'numeric', timeZone: 'UTC' });
  return `\`npm run bench -- ${name}\`, ${day}, ${machine} ([all cases](bench/results/${name}.json)):

| | messages a second | measured | aim | |
| --- | --- | --- | --- | --- |
${aims.map(rowOf).join('\n')}`;
}

function rowOf(aim: Aim): string {
  const { perSecond, against } = aim;
  const rates = perSecond === undefined || against === undefined ? '' : `${text(perSecond)} of ${text(against)}`;
  const limit = 'atLeast' in aim ? `≥ ${text(aim.atLeast)}` : `≤ ${text(aim.atMost)}`;
  return `| ${aim.name} | ${rates} | ${text(aim.measured)} | ${limit} | ${isMet(aim) ? 'met' : '**missed**'} |`;
}

export function isMet(aim: Aim): boolean {
  return 'atLeast' in aim ? aim.measured >= aim.atLeast : aim.measured <= aim.atMost;
}

const text = (number: number) => number.toLocaleString('en', { maximumFractionDigits: 3 });
