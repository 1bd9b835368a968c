import { type ChildProcess, fork } from 'node:child_process';
import type { DedupStore } from '../../../src/store.ts';
import { ask } from '../../../src/testing/clauses/kit.ts';

/* Races between processes. Above the line is the test's side of it, below the child's. */

/** What a child tells of each batch. */
export interface Batch {
  /** The keys that were given to it. */
  readonly claimed: readonly number[];
  readonly fences?: readonly number[];
  /** Answers that are neither `claimed` nor `busy`. */
  readonly others?: readonly unknown[];
}

export interface Child {
  readonly process: ChildProcess;
  readonly batches: Batch[];
  /** Resolves when the child can start, and when it has gone; with the signal that ended it, if one did. */
  readonly ready: Promise<unknown>;
  readonly gone: Promise<string | null>;
  /** Called for each batch that the child tells of. */
  onBatch: () => void;
}

/** Starts a script, which calls `beChild`. */
export function startChild(script: URL, args: readonly (string | number)[], cleanups: (() => unknown)[]): Child {
  const forked = fork(script.pathname, args.map(String), { execArgv: ['--disable-warning=ExperimentalWarning'] });
  const gone = new Promise<string | null>((resolve, reject) => {
    forked.once('exit', (code, signal) =>
      code ? reject(new Error(`${script.pathname} ${args.join(' ')} ended with code ${code}`)) : resolve(signal),
    );
  });
  gone.catch(() => {});
  cleanups.push(() => void forked.kill('SIGKILL'));
  const child: Child = {
    process: forked,
    batches: [],
    gone,
    ready: Promise.race([new Promise<void>((resolve) => forked.once('message', () => resolve())), gone]),
    onBatch: () => {},
  };
  forked.on('message', (message) => {
    if (typeof message === 'string') return;
    child.batches.push(message as Batch);
    child.onBatch();
  });
  return child;
}

/** Lets all children go at once. */
export async function race(children: readonly Child[]): Promise<void> {
  await Promise.all(children.map(({ ready }) => ready));
  for (const child of children) child.process.send('go');
}

// ---------------------------------------------------------------------------------------------------------------------------------

/** Says `ready`, waits to be told to start, runs, and goes. */
export async function beChild(run: () => Promise<void>): Promise<void> {
  const started = new Promise<void>((resolve) => process.once('message', () => resolve()));
  await tell('ready');
  await started;
  await run();
  await tell('done');
  process.disconnect();
}

export const tell = (message: unknown): Promise<void> => new Promise((resolve) => process.send!(message, () => resolve()));

/** The keys in batches, in an order of the client's own. */
export function batchesOf(client: number, keys: number, size: number): number[][] {
  const names = Array.from({ length: keys }, (_, i) => i);
  names.sort((a, b) => ((a * 7919 + client * 104_729) % 10_007) - ((b * 7919 + client * 104_729) % 10_007) || a - b);
  return Array.from({ length: Math.ceil(keys / size) }, (_, i) => names.slice(i * size, (i + 1) * size));
}

/** Claims all keys, and tells each batch. */
export async function claimAll(store: DedupStore, client: number, keys: number, size: number): Promise<void> {
  for (const names of batchesOf(client, keys, size)) {
    const answers = await store.claim(names.map((name) => ask(name, `client ${client}`, { leaseMs: 30_000 })));
    const given = answers.flatMap((answer, i) => (answer.state === 'claimed' ? [{ name: names[i]!, fence: answer.fence }] : []));
    await tell({
      claimed: given.map(({ name }) => name),
      fences: given.map(({ fence }) => fence),
      others: answers.filter(({ state }) => state !== 'claimed' && state !== 'busy'),
    } satisfies Batch);
  }
}
