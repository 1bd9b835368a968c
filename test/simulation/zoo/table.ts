import type { Bug } from './bug.ts';
import type { Catch } from './hunt.ts';

/** The zoo as a page: what each bug is, where it happened, and who catches it after how many seeds. */
export function tableOf(bugs: readonly Bug[], caught: ReadonlyMap<Bug, Catch>): string {
  const rows = bugs.map((bug) => {
    const { simulator, clauses } = caught.get(bug)!;
    const by = [
      simulator && `simulator, ${simulator.invariant}, ${simulator.pair}`,
      clauses.length > 0 && `store contract ${clauses.join(', ')}`,
    ];
    return `| ${bug.name} | ${bug.wild} | ${by.filter(Boolean).join('; ') || '**nobody**'} | ${simulator?.seeds ?? ''} |`;
  });
  return [
    '# The bug zoo',
    '',
    'Bugs that others have shipped, each put into a copy of this code and hunted there. Made by `npm run zoo`; do not edit.',
    'W, A, S and K: sections of the research notes on failure windows, on other systems, on SQS and on Kafka.',
    '',
    '| bug | in the wild | caught by | after seeds |',
    '| --- | --- | --- | ---: |',
    ...rows,
    '',
  ].join('\n');
}
