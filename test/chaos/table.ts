import { readFileSync, writeFileSync } from 'node:fs';
import { type Cell, matrix, nameOf } from './cell.ts';
import type { Found } from './run.ts';

/** What is kept of a run. */
export interface Result
  extends Pick<
    Found,
    'seed' | 'leaseMs' | 'seconds' | 'messages' | 'copies' | 'kills' | 'stops' | 'storeFaults' | 'brokerFaults' | 'explained' | 'refused'
  > {
  readonly cell: Cell;
  readonly throws: number;
  readonly duplicates: number;
  readonly lost: number;
  readonly doubled: number;
  readonly disordered: number;
  /** Doubled although the mode does not allow it. */
  readonly wrong: number;
  /** `YYYY-MM-DD`, of which commit, on what, and how much else that had to do: the load average at the end. */
  readonly date: string;
  readonly commit: string;
  readonly machine: string;
  readonly load: number;
}

const resultsFile = new URL('results.json', import.meta.url);

export const readResults = (): Result[] => JSON.parse(readFileSync(resultsFile, 'utf8')) as Result[];

export function resultOf(found: Found, where: Pick<Result, 'date' | 'commit' | 'machine' | 'load'>): Result {
  const { cell, seed, leaseMs, seconds, messages, copies, kills, stops, storeFaults, brokerFaults, explained, refused, told } = found;
  return {
    ...{ cell, seed, leaseMs, seconds, messages, copies, kills, stops, storeFaults, brokerFaults, explained, refused },
    throws: told['thrown'] ?? 0,
    duplicates: told['duplicate'] ?? 0,
    ...{ lost: found.lost.length, doubled: found.doubled.length, disordered: found.disordered.length, wrong: found.wrong.length },
    ...where,
  };
}

/** Keeps a result in the place of the cell's last one. */
export function keep(result: Result): void {
  const name = nameOf(result.cell);
  const all = [...readResults().filter(({ cell }) => nameOf(cell) !== name), result];
  const order = matrix.map(nameOf);
  all.sort((a, b) => order.indexOf(nameOf(a.cell)) - order.indexOf(nameOf(b.cell)));
  writeFileSync(resultsFile, `${JSON.stringify(all, null, 2)}\n`);
}

const whyOf = ({ explained }: Result): string =>
  Object.entries(explained)
    .map(([why, count]) => `${count} ${why}`)
    .join(', ');

/** CHAOS.md. */
export function pageOf(results: readonly Result[]): string {
  const rows = results.map((one) => {
    const { cell, seconds, messages, copies, kills, stops, storeFaults, brokerFaults, throws, duplicates, lost, doubled, disordered } = one;
    const why = cell.mode === 'naive' ? '' : whyOf(one);
    const cells = [
      nameOf(cell),
      ...[messages, copies, kills, stops, throws, storeFaults, brokerFaults, duplicates, lost, doubled],
      why,
      disordered,
      cell.mode === 'fenced' ? one.refused : '',
      ...[one.leaseMs, seconds, one.load, one.date, one.commit],
    ];
    return `| ${cells.join(' | ')} |`;
  });
  const machines = [...new Set(results.map(({ machine }) => machine))];
  return [
    '# Chaos on real services',
    '',
    `Made by \`npm run chaos -- --keep\`; do not edit. Machine: ${machines.join('; ')}. Eight worker processes (fourteen on Kafka)`,
    'are killed and stopped past their lease, a tenth of all calls of handlers throws, a tenth of all messages is sent twice, and store and broker are killed,',
    'restarted, paused, cut off, frozen, and lose replies.',
    'SQLite has no server: another writer keeps its lock. SQS is ElasticMQ, which keeps messages in memory, so it is not killed.',
    '',
    '`doubled` is to be 0 where effect and record share a transaction. Elsewhere each double is traced to what fell between effect and record: a worker',
    'that was killed, stopped, or starved by the machine (stalled); a store that was out; a worker that woke up late. One without such a reason fails the run.',
    '`refused`: writes with a stale fence, which the ledger did not take. The naive consumers have to fail: half of their workers ack first, half last.',
    'Seconds are those of the whole run; `load` is the load average at its end, of whatever the machine had to do.',
    '',
    '| store × broker × mode | messages | copies | kills | stops | throws | store faults | broker faults | duplicates dropped | lost | doubled | because | out of order | refused | lease, ms | s | load | date | commit |',
    `| --- |${' ---: |'.repeat(10)} --- |${' ---: |'.repeat(5)} --- | --- |`,
    ...rows,
    '',
  ].join('\n');
}

/** The README's table: one row for each mode, and the naive consumer. */
export function blockOf(results: readonly Result[]): string {
  if (results.length === 0) return '';
  const sum = (
    of: readonly Result[],
    what: 'messages' | 'kills' | 'stops' | 'lost' | 'doubled' | 'wrong' | 'storeFaults' | 'brokerFaults',
  ) => of.reduce((before, one) => before + one[what], 0);
  const number = (n: number) => n.toLocaleString('en');
  const rows = [...Map.groupBy(results, ({ cell }) => cell.mode)].map(([mode, of]) => {
    const doubled = sum(of, 'doubled');
    const explained =
      mode === 'leased' || mode === 'fenced'
        ? `, ${number(sum(of, 'wrong'))} of them without a kill, a stall or an outage between effect and record`
        : '';
    const faults = sum(of, 'storeFaults') + sum(of, 'brokerFaults');
    const cells = [of.length, sum(of, 'messages'), sum(of, 'kills'), sum(of, 'stops'), faults, sum(of, 'lost')].map(number);
    return `| ${mode === 'naive' ? 'a naive consumer, which must fail' : `\`${mode}\``} | ${cells.join(' | ')} | ${number(doubled)}${doubled > 0 ? explained : ''} |`;
  });
  const dates = results.map(({ date }) => date).sort();
  return [
    `Last on ${dates.at(-1)}: ${results.length} of the ${matrix.length} cells (store × broker × mode), [one by one](test/chaos/CHAOS.md).`,
    '',
    '| | runs | messages | SIGKILL | stalls past the lease | faults of stores and brokers | lost | doubled |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ...rows,
  ].join('\n');
}
