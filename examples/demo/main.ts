/**
 * Every order is charged exactly once, while the workers are being killed.
 *
 * A producer sends orders to SQS (FIFO and standard, served over HTTP inside this process), part of them twice or three times. Two crews of
 * worker processes charge them: one built on `idempotent-receiver` (worker.ts), one as it is usually done (naive-worker.ts). A chaos hand kills and
 * stops the workers of both. In the end each crew's ledger is compared with the producer's list.
 *
 * Read worker.ts first, then naive-worker.ts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chaos } from './chaos.ts';
import { type Crew, startCrew } from './crew.ts';
import { audit, createLedger, type LedgerReader, readLedger } from './ledger.ts';
import { isInOrder, producer } from './producer.ts';
import { type Broker, messagesIn, type Queues, startBroker } from './queues.ts';
import { complaints, finalRows, type Result, summaryLine, table } from './report.ts';
import { fewMessages, kills, limits, promised, stops, workersPerSide } from './settings.ts';
import { type Glance, startView } from './view.ts';

/** One of the two crews, with all that belongs to it. */
interface Side {
  readonly name: 'naive' | 'receiver';
  readonly queues: Queues;
  readonly crew: Crew;
  readonly ledger: LedgerReader;
  inQueues: number;
  /** The chaos hand has done its work. */
  calm: boolean;
}

const startedAt = performance.now();
const folder = mkdtempSync(join(tmpdir(), 'idempotent-receiver-demo-'));
const crews: Crew[] = [];

// However this process ends, no worker outlives it, and no file.
process.on('exit', () => {
  for (const crew of crews) crew.killAll();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  if (process.stdout.isTTY) process.stdout.write('\x1b[?25h');
});
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
process.once('SIGHUP', () => process.exit(129));
setTimeout(() => fail(`the demo did not come to its end within ${limits.wholeMs / 1_000} s`), limits.wholeMs).unref();

const broker = await startBroker();
const naive = await startSide('naive', './naive-worker.ts');
const receiver = await startSide('receiver', './worker.ts');
const sides = [naive, receiver];
const source = producer(
  broker.client,
  sides.map(({ queues }) => queues),
);

const colour = process.stdout.isTTY && !process.env['NO_COLOR'];
let phase = 'orders come in, workers are killed and stopped';
console.log(`
  Two consumers get the same orders, some of them twice or three times.
  Each runs ${workersPerSide} workers, with ${kills} kills and ${stops} stops for longer than the lease.
`);
const view = startView(process.stdout, colour, () => ({
  seconds: (performance.now() - startedAt) / 1_000,
  phase,
  sent: source.orders.length,
  naive: glanceAt(naive),
  receiver: glanceAt(receiver),
}));
const counting = keepCounting(broker, sides);

const chaosLimit = AbortSignal.timeout(limits.chaosMs);
const faults = sides.map(async (side) => {
  await chaos(side.crew, chaosLimit);
  side.calm = true;
});
const orders = source.run(() => {
  if (source.orders.length < promised.orders) return 'yes';
  const tormented = sides.filter(({ calm }) => !calm);
  if (tormented.length === 0) return 'no';
  // The chaos hand waits for workers at work, so they need something to do.
  return tormented.some(({ inQueues }) => inQueues < fewMessages) ? 'yes' : 'wait';
});
await Promise.all([...faults, orders]);

phase = 'no more kills: the queues run empty';
await drain(broker, sides);
counting.stop();
await Promise.all(crews.map((crew) => crew.dismiss()));
view.stop();

const results = { naive: await resultOf(naive), receiver: await resultOf(receiver) };
const wrong = complaints(results.naive, results.receiver);
console.log(`\n${table(finalRows(results.naive, results.receiver), colour).join('\n')}\n`);
console.log(`  ${((performance.now() - startedAt) / 1_000).toFixed(1)} s\n`);
for (const complaint of wrong) console.log(`FAILED: ${complaint}`);
console.log(summaryLine(results.naive));
console.log(summaryLine(results.receiver));
await broker.close();
process.exit(wrong.length > 0 ? 1 : 0);

function fail(why: string): never {
  console.error(`\nFAILED: ${why}`);
  process.exit(1);
}

async function startSide(name: Side['name'], script: string): Promise<Side> {
  const queues = await broker.createQueues(name);
  const file = join(folder, `${name}.sqlite`);
  createLedger(file);
  const crew = startCrew(script, { endpoint: broker.endpoint, queueUrls: [queues.fifo, queues.standard], file }, folder, fail);
  crews.push(crew);
  return { name, queues, crew, ledger: readLedger(file), inQueues: 0, calm: false };
}

function glanceAt({ crew, ledger, inQueues }: Side): Glance {
  return { ...crew.counts, ...ledger.totals(), states: crew.states, inQueues };
}

function keepCounting({ client }: Broker, sides: readonly Side[]): { stop(): void } {
  const timer = setInterval(() => {
    for (const side of sides) {
      messagesIn(client, [side.queues.fifo, side.queues.standard]).then(
        (count) => (side.inQueues = count),
        () => {},
      );
    }
  }, 500);
  return { stop: () => clearInterval(timer) };
}

/** Waits until both sides' queues are empty: nothing waits, and nothing is in a worker's hands. */
async function drain({ client }: Broker, sides: readonly Side[]): Promise<void> {
  const queueUrls = sides.flatMap(({ queues }) => [queues.fifo, queues.standard]);
  const until = performance.now() + limits.drainMs;
  while ((await messagesIn(client, queueUrls)) > 0 && performance.now() < until) await sleep(100);
}

async function resultOf({ name, queues, crew, ledger }: Side): Promise<Result> {
  const entries = ledger.entries();
  const sum = entries.reduce((total, { cents }) => total + cents, 0);
  return {
    name,
    ...crew.counts,
    ...audit(source.orders, entries, isInOrder),
    sent: source.orders.length,
    messages: source.messages,
    undelivered: await messagesIn(broker.client, [queues.fifo, queues.standard]),
    deadLetters: await messagesIn(broker.client, queues.deadLetters),
    unbalanced: Math.abs(sum - ledger.charged()),
  };
}
