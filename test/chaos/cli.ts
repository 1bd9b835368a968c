import { execFileSync } from 'node:child_process';
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { writeGenerated } from '../support/generated.ts';
import { startBroker } from './brokers.ts';
import { aimOf, matrix, nameOf, timesOf } from './cell.ts';
import { complaints, detailsOf, isTooLittle } from './report.ts';
import { type Found, run } from './run.ts';
import { startStore } from './stores.ts';
import { keep, resultOf } from './table.ts';

/**
 * npm run chaos                                                        every store × broker × mode, 60 s each
 * npm run chaos -- --seconds 10                                        a short one of each
 * npm run chaos -- --store postgres --broker sqs-fifo --mode leased    one of them; each of these may be left out
 * npm run chaos -- --seed 42                                           with the same plan of blows; where they fall is the machine's chance
 * npm run chaos -- --lease 1500                                         milliseconds, 600 if left out: for a machine that has much else to do
 * npm run chaos -- --keep                                              writes results.json, CHAOS.md and the README's table
 *
 * The last line is `chaos: <n> messages, <n> kills, <n> stops, <n> store faults, <n> lost, <n> doubled`. Exits 1 if a mode did not keep its promise,
 * if a run was not exercised, or if the naive consumer came through.
 */
const { values } = parseArgs({
  options: {
    store: { type: 'string' },
    broker: { type: 'string' },
    mode: { type: 'string' },
    seconds: { type: 'string' },
    seed: { type: 'string' },
    lease: { type: 'string' },
    keep: { type: 'boolean' },
  },
});
const cells = matrix.filter(
  ({ store, broker, mode }) => store === (values.store ?? store) && broker === (values.broker ?? broker) && mode === (values.mode ?? mode),
);
if (cells.length === 0) throw new Error(`Expected one of\n${matrix.map((cell) => JSON.stringify(cell)).join('\n')}`);
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  process.once(signal, () => process.exit(code));

const aim = aimOf(Number(values.seconds ?? 60));
const times = timesOf(Number(values.lease ?? 600));
const seed = Number(values.seed ?? Date.now() % 1_000_000);
console.log(`seed ${seed}; for each cell ${JSON.stringify(aim)}; ${JSON.stringify(times)}\n`);
const found: Found[] = [];
const failed: string[] = [];

for (const [broker, ofBroker] of Map.groupBy(cells, (cell) => cell.broker)) {
  const brokerSide = await startBroker(broker);
  for (const [store, ofStore] of Map.groupBy(ofBroker, (cell) => cell.store)) {
    const storeSide = await startStore(store);
    for (const cell of ofStore) {
      const of = (seed: number) =>
        run(cell, storeSide, brokerSide, { aim, times, seed, onProgress: (line) => console.error(`    ${line}`) });
      let one = await of(seed);
      // Where blows fall is the machine's chance too. Nothing else is forgiven.
      let wrong = complaints(one, aim);
      if (wrong.length > 0 && wrong.every(isTooLittle)) {
        console.log(`again  ${nameOf(cell)}: ${wrong.join('; ')}`);
        one = await of(seed + 1);
        wrong = complaints(one, aim);
      }
      found.push(one);
      if (values.keep) {
        keep(resultOf(one, where()));
        writeGenerated();
      }
      failed.push(...wrong.map((each) => `${nameOf(cell)}: ${each}`));
      console.log(`${wrong.length > 0 ? 'FAILED' : 'ok'}  ${nameOf(cell)}: ${detailsOf(one)}`);
      for (const each of wrong) console.log(`        ${each}`);
    }
    await storeSide.close();
  }
  await brokerSide.close();
}

// What the naive consumer lost and doubled is not the library's.
const ours = found.filter(({ cell }) => cell.mode !== 'naive');
const sum = (of: (one: Found) => number) => ours.reduce((before, one) => before + of(one), 0);
if (failed.length > 0) console.log(`\n${failed.length} complaints:\n${failed.join('\n')}`);
console.log(
  `\nchaos: ${sum(({ messages }) => messages)} messages, ${sum(({ kills }) => kills)} kills, ${sum(({ stops }) => stops)} stops, ${sum(
    ({ storeFaults }) => storeFaults,
  )} store faults, ${sum(({ lost }) => lost.length)} lost, ${sum(({ doubled }) => doubled.length)} doubled`,
);
process.exit(failed.length > 0 ? 1 : 0);

function where() {
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: execFileSync('git', ['describe', '--always', '--dirty', '--exclude=*'], { encoding: 'utf8' }).trim(),
    machine: `${availableParallelism()} cores, Node ${process.versions.node}`,
    load: Math.round(loadavg()[0]!),
  };
}
