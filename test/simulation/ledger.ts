import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import type { Way } from './scenario.ts';
import type { Worker } from './worker.ts';

/** One call of the handler. */
export interface Run {
  readonly id: number;
  readonly key: string;
  readonly payload: string;
  /** The SQS message that brought it. */
  readonly messageId: string;
  readonly worker: Worker;
  readonly startedAt: number;
  readonly attempt: number;
  readonly fence: number | undefined;
  outcome: 'running' | 'returned' | 'threw';
  endedAt: number;
}

/** One effect that somebody outside can see. */
export interface Effect {
  readonly run: Run;
  readonly at: number;
}

/** Refused by the resource of the fenced way: somebody with a greater fence has been here. */
class StaleFence extends Error {}

/**
 * The outside world that handlers change: what has really happened, whatever anybody believes. In the fenced way it compares fences and remembers
 * keys, as such a resource must; otherwise it does what it is told, each time.
 */
export class Ledger {
  readonly runs: Run[] = [];
  readonly effects = new Map<string, Effect[]>();
  readonly running = new Set<Run>();
  fencedWrites = 0;
  /** Told about each effect as it happens, and once for all effects of one commit. */
  onEffects: (effects: readonly Effect[]) => void = () => {};
  onBegin: (run: Run) => void = () => {};
  readonly #kernel: Kernel;
  readonly #fences = new Map<string, number>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  begin(of: Omit<Run, 'id' | 'startedAt' | 'outcome' | 'endedAt'>): Run {
    const run: Run = {
      ...of,
      id: this.runs.length + 1,
      startedAt: this.#kernel.now,
      outcome: 'running',
      endedAt: Number.POSITIVE_INFINITY,
    };
    this.runs.push(run);
    this.running.add(run);
    this.onBegin(run);
    return run;
  }

  end(run: Run, outcome: 'returned' | 'threw'): void {
    run.outcome = outcome;
    run.endedAt = this.#kernel.now;
    this.running.delete(run);
  }

  /** The effect of a run; answers the run whose effect counts. */
  apply(way: Exclude<Way, 'transactional'>, run: Run): number {
    const before = this.effects.get(run.key)?.[0];
    if (way === 'fenced') {
      const seen = this.#fences.get(run.key) ?? 0;
      if (!(run.fence! >= seen)) {
        this.fencedWrites++;
        throw new StaleFence(`fence ${run.fence} is behind ${seen}`);
      }
      this.#fences.set(run.key, run.fence!);
      if (before) return before.run.id;
    }
    this.commit([run]);
    return run.id;
  }

  /** Effects that become visible together. */
  commit(runs: readonly Run[]): void {
    const effects = runs.map((run) => ({ run, at: this.#kernel.now }));
    for (const effect of effects) {
      const list = this.effects.get(effect.run.key);
      if (list) list.push(effect);
      else this.effects.set(effect.run.key, [effect]);
    }
    this.onEffects(effects);
  }

  /** A crash has taken them back. */
  undo(runs: readonly Run[]): void {
    for (const run of runs) {
      const left = this.of(run.key).filter((effect) => effect.run !== run);
      if (left.length > 0) this.effects.set(run.key, left);
      else this.effects.delete(run.key);
    }
  }

  of(key: string): readonly Effect[] {
    return this.effects.get(key) ?? [];
  }
}
