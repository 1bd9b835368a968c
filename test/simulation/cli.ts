import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { addCounts, missing } from './coverage.ts';
import { minimise } from './minimise.ts';
import { cells } from './scenario.ts';
import { simulate } from './simulate.ts';
import { storyOf } from './story.ts';
import type { Done, Share } from './thread.ts';
import { noCounts } from './watch.ts';

/**
 * npm run simulate                            3,000 seeds for each way and broker
 * npm run simulate -- --seeds 20000           so many for each; one in eleven is a new one each time
 * npm run simulate -- --ci                    100,000 for each
 * npm run simulate -- --known                 no new ones: a change is judged by what it changes
 * npm run simulate -- --minutes 60            as many as there is time for
 * npm run simulate -- --seed 42 [--way leased|fenced|transactional] [--broker standard|fifo|kafka|kafka-transactions|calls] [--story]
 *
 * The last line is `simulate: <n> seeds, <n> crashes, <n> zombies, <n> violations`. Exits 1 for a violation, and for a run that did not
 * exercise what it is for.
 */
const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    minutes: { type: 'string' },
    ci: { type: 'boolean' },
    known: { type: 'boolean' },
    from: { type: 'string' },
    way: { type: 'string' },
    broker: { type: 'string' },
    processes: { type: 'string' },
    story: { type: 'boolean' },
  },
});
const pairs = cells.filter(({ way, broker }) => way === (values.way ?? way) && broker === (values.broker ?? broker));
if (pairs.length === 0) throw new Error(`Expected one of ${cells.map(({ way, broker }) => `${way} × ${broker}`).join(', ')}`);
const totals = pairs.map((pair) => ({ ...pair, seeds: 0, counts: noCounts(), failing: [] as number[] }));
const startedAt = performance.now();

if (values.seed === undefined) await many();
else await one(Number(values.seed));
await tell();

async function one(seed: number): Promise<void> {
  for (const total of totals) {
    const { way, broker } = total;
    const report = await simulate({ seed, way, broker, telling: values.story === true });
    total.seeds = 1;
    addCounts(total.counts, report.counts);
    if (report.violations.length > 0) total.failing.push(seed);
    else if (values.story)
      for (const { at, who, text } of report.story) console.log(`${(at / 1_000).toFixed(3).padStart(10)} ${who.padEnd(8)} ${text}`);
  }
}

/** Shares all seeds between threads. Those of `from` and on are the same each time; a tenth more are new ones. */
async function many(): Promise<void> {
  const count = values.minutes === undefined ? Number(values.seeds ?? (values.ci ? 100_000 : 3_000)) : Number.POSITIVE_INFINITY;
  const endsAt = startedAt + Number(values.minutes ?? Number.POSITIVE_INFINITY) * 60_000;
  const fresh = 1_000_000 + Math.floor(Date.now() / 1_000) * 1_000;
  console.log(`seeds from ${values.from ?? 1}${values.known ? '' : `, new ones from ${fresh}`}`);
  const size = 50;
  function* shares(): Generator<Share> {
    for (let at = 0; at < count; at += size) {
      for (const pair of pairs) yield { ...pair, from: Number(values.from ?? 1) + at, count: Math.min(size, count - at) };
      if (!values.known && at % (size * 10) === 0) for (const pair of pairs) yield { ...pair, from: fresh + at / 10, count: size };
    }
  }
  const open = shares();
  const threads = Array.from(
    { length: Number(values.processes ?? availableParallelism()) },
    () => new Worker(new URL('thread.ts', import.meta.url)),
  );
  await Promise.all(
    threads.map(
      (thread) =>
        new Promise<void>((resolve, reject) => {
          const next = () => {
            const share = performance.now() < endsAt ? open.next() : { done: true as const, value: undefined };
            if (share.done) return resolve();
            thread.postMessage(share.value);
          };
          thread.on('error', reject);
          thread.on('message', ({ share, counts, failing }: Done) => {
            const total = totals.find(({ way, broker }) => way === share.way && broker === share.broker)!;
            total.seeds += share.count;
            addCounts(total.counts, counts);
            total.failing.push(...failing);
            next();
          });
          next();
        }),
    ),
  ).finally(() => Promise.all(threads.map((thread) => thread.terminate())));
}

async function tell(): Promise<void> {
  const seconds = (performance.now() - startedAt) / 1_000;
  for (const { way, broker, failing } of totals) {
    const [seed] = failing;
    if (seed === undefined) continue;
    const run = { seed, way, broker };
    console.log(`\n${storyOf(run, await minimise(run, await simulate(run)), commit())}`);
    if (failing.length > 1) console.log(`\nand ${failing.length - 1} more seeds of ${way} × ${broker}: ${failing.slice(1, 20).join(', ')}`);
  }
  console.log('');
  for (const { way, broker, seeds, counts, failing } of totals) {
    const seen = Object.entries(counts).filter(([, count]) => count > 0);
    console.log(
      `${way} × ${broker}: ${seeds} seeds, ${failing.length} failed; ${seen.map(([name, count]) => `${name} ${count}`).join(', ')}`,
    );
  }
  const gaps = totals.flatMap(({ way, broker, seeds, counts }) => missing(way, broker, seeds, counts));
  for (const gap of gaps) console.log(`not exercised: ${gap}`);
  const all = noCounts();
  for (const { counts } of totals) addCounts(all, counts);
  const sum = (of: (total: (typeof totals)[number]) => number) => totals.reduce((before, total) => before + of(total), 0);
  const [seeds, violations] = [sum((total) => total.seeds), sum((total) => total.failing.length)];
  console.log(`${Math.round(seeds / seconds)} seeds a second`);
  console.log(`simulate: ${seeds} seeds, ${all.crashes} crashes, ${all.zombies} zombies, ${violations} violations`);
  if (violations > 0 || gaps.length > 0) process.exitCode = 1;
}

function commit(): string {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8' }).trim();
  } catch {
    return 'unknown';
  }
}
