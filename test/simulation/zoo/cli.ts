import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { cells } from '../scenario.ts';
import { allBugs } from './all.ts';
import { type Bug, leased } from './bug.ts';
import { grow, uproot } from './grow.ts';
import type { Catch, Hunt } from './hunt.ts';
import { tableOf } from './table.ts';

/**
 * npm run zoo                              puts each bug into a copy of the code, and hunts it there; writes ZOO.md
 * npm run zoo -- --only <text>             only the bugs whose names or files contain it; writes nothing
 *
 * The last line is `zoo: <n> bugs, <n> caught`. Exits 1 if one got away.
 */
const { values } = parseArgs({ options: { only: { type: 'string' }, seeds: { type: 'string' }, processes: { type: 'string' } } });
const { only = '' } = values;
const bugs = allBugs.filter(({ name, patches }) => name.includes(only) || patches.some(({ file }) => file.includes(only)));
/** Every bug has to be caught within so many seeds. */
const limit = Number(values.seeds ?? 20_000);

/** The code as it is: what is caught in it is a bug of ours, or of the hunter. */
const none: Bug = { name: '', wild: '', patches: [], look: cells.map(({ way, broker }) => [way, broker] as const) };
const clean = await inCopy(none, 'none', 100);
if (isCaught(clean)) {
  console.log(`Nothing was put into the code, and it is caught: ${tell(clean)}`);
  process.exit(1);
}

const caught = new Map<Bug, Catch>();
const open = bugs.entries();
await Promise.all(Array.from({ length: Number(values.processes ?? availableParallelism()) }, keeper));
if (!only) writeFileSync(fileURLToPath(new URL('../ZOO.md', import.meta.url)), tableOf(bugs, caught));
const count = bugs.filter((bug) => isCaught(caught.get(bug))).length;
console.log(`zoo: ${bugs.length} bugs, ${count} caught`);
if (count < bugs.length) process.exitCode = 1;

async function keeper(): Promise<void> {
  for (const [index, bug] of open) {
    const found = await inCopy(bug, String(index), limit);
    caught.set(bug, found);
    console.log(`${isCaught(found) ? 'caught ' : 'AT LARGE'} ${bug.name}: ${tell(found)}`);
  }
}

async function inCopy(bug: Bug, id: string, seeds: number): Promise<Catch> {
  const folder = grow(bug, id);
  try {
    return await hunt(bug, folder, seeds);
  } finally {
    uproot(folder);
  }
}

function tell({ simulator, clauses }: Catch): string {
  const by = simulator ? [`${simulator.invariant} on ${simulator.pair} after ${simulator.seeds} seeds: ${simulator.what}`] : [];
  return [...by, ...(clauses.length > 0 ? [`contract ${clauses.join(', ')}`] : [])].join('; ');
}

function hunt(bug: Bug, folder: string, seeds: number): Promise<Catch> {
  const contract = bug === none || bug.patches.some(({ file }) => file.startsWith('adapters/stores/'));
  const workerData: Hunt = { look: bug.look ?? leased, contract, simulator: bug.contractOnly !== true, limit: seeds };
  return new Promise((resolve, reject) => {
    const worker = new Worker(pathToFileURL(join(folder, 'test/simulation/zoo/hunt.ts')), { workerData, stderr: false });
    worker.once('message', (message: Catch) => void worker.terminate().then(() => resolve(message)));
    worker.once('error', (error) => reject(new Error(`Bug "${bug.name}" does not even run: ${String(error)}`, { cause: error })));
  });
}

function isCaught(found: Catch | undefined): boolean {
  return found !== undefined && (found.simulator !== undefined || found.clauses.length > 0);
}
