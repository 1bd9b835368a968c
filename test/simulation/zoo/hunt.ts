import { parentPort, workerData } from 'node:worker_threads';
import { memoryStore } from '../../../adapters/stores/memory.ts';
import { runClause, storeClauses } from '../../../src/testing/index.ts';
import { simulate } from '../simulate.ts';
import type { Bug } from './bug.ts';

/** What is to be hunted, in the code that this file was copied with. */
export interface Hunt {
  readonly look: NonNullable<Bug['look']>;
  readonly contract: boolean;
  readonly simulator: boolean;
  readonly limit: number;
}

export interface Catch {
  /** By the simulator: after how many seeds, on which pair, and what it said. */
  readonly simulator: { readonly seeds: number; readonly pair: string; readonly invariant: string; readonly what: string } | undefined;
  /** Clauses of the store contract that fail on the memory store. */
  readonly clauses: readonly string[];
}

Error.stackTraceLimit = 0;
const { look, contract, simulator, limit } = workerData as Hunt;
parentPort!.postMessage({ clauses: contract ? await broken() : [], simulator: simulator ? await search() : undefined } satisfies Catch);

async function broken(): Promise<string[]> {
  const ids: string[] = [];
  for (const clause of storeClauses) {
    if (clause.needs !== undefined && clause.needs !== 'admin' && clause.needs !== 'another') continue;
    let now = 0;
    const harness = { store: memoryStore({ now: () => now }), elapse: (ms: number) => void (now += ms) };
    try {
      await runClause(clause, () => harness);
    } catch {
      ids.push(clause.id);
    }
  }
  return ids;
}

/** The pairs take turns, so that a bug that shows on one of them only is found soon too. */
async function search(): Promise<Catch['simulator']> {
  for (let seed = 1; seed <= limit; seed++) {
    for (const [at, [way, broker]] of look.entries()) {
      const seeds = (seed - 1) * look.length + at + 1;
      let first: { readonly invariant: string; readonly what: string } | undefined;
      try {
        [first] = (await simulate({ seed, way, broker })).violations;
      } catch (error) {
        first = { invariant: 'broken', what: String(error) };
      }
      if (first) return { seeds, pair: `${way} × ${broker}`, invariant: first.invariant, what: first.what };
    }
  }
  return undefined;
}
