import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import type { Fault } from './chance.ts';

/** The invariants of DESIGN.md 5, as far as a run can show them. */
export type Invariant = 'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'I6' | 'I7' | 'I8' | 'I9' | 'I10' | 'I11' | 'lost' | 'order' | 'broken';

export interface Violation {
  readonly invariant: Invariant;
  readonly what: string;
  readonly at: number;
}

/** What is worth counting: a run that never gets there proves nothing. */
export const interesting = [
  'crashes',
  'pauses',
  'stops',
  'outages',
  'zombies',
  'lostRequests',
  'lostReplies',
  'resent',
  'orphans',
  'forgotten',
  'lostWrites',
  'tooOld',
  'reruns',
  'busy',
  'fenced',
  'fencedWrites',
  'duplicates',
  'batchCopies',
  'mismatches',
  'redeliveries',
  'staleHandles',
  'copies',
  'keptDeletes',
  'parkedPoison',
  'deadLetters',
  'redriven',
  'abandoned',
  'inDoubt',
  'inDoubtCommitted',
  'conflicts',
  'rollbacks',
  'groupStops',
  'rebalances',
  'expelled',
  'refusedCommits',
  'clientCrashes',
  'overdue',
  'fencedProducers',
  'abortedTransactions',
] as const;
export type Interesting = (typeof interesting)[number];

const none = Object.fromEntries(interesting.map((name) => [name, 0])) as Record<Interesting, number>;

export function noCounts(): Record<Interesting, number> {
  return { ...none };
}

/** One line of the story of a run. */
export interface Line {
  readonly at: number;
  readonly who: string;
  readonly text: string;
  readonly fault: boolean;
}

/** Sees everything in a run: counts what is interesting, keeps violations, and tells the story where somebody wants to hear it. */
export class Watch {
  readonly violations: Violation[] = [];
  readonly counts: Record<Interesting, number> = noCounts();
  readonly story: Line[] = [];
  readonly #kernel: Kernel;
  readonly #telling: boolean;

  constructor(kernel: Kernel, telling: boolean) {
    this.#kernel = kernel;
    this.#telling = telling;
  }

  violation(invariant: Invariant, what: string): void {
    this.violations.push({ invariant, what, at: this.#kernel.now });
    if (this.#telling) this.story.push({ at: this.#kernel.now, who: 'CHECK', text: `${invariant} is violated: ${what}`, fault: true });
  }

  count(name: Interesting, by = 1): void {
    this.counts[name] += by;
  }

  /** `text` is made only where the story is told. */
  tell(who: string, text: () => string, fault = false): void {
    if (this.#telling) this.story.push({ at: this.#kernel.now, who, text: text(), fault });
  }

  fault(who: string, fault: Fault, op: string): void {
    switch (fault.kind) {
      case 'pause-before':
      case 'pause-after':
        this.counts.pauses++;
        break;
      case 'lost-request':
      case 'hang-request':
        this.counts.lostRequests++;
        break;
      case 'lost-reply':
      case 'hang-reply':
        this.counts.lostReplies++;
        break;
      case 'resent':
        this.counts.resent++;
        break;
    }
    this.tell(who, () => `${op}: ${fault.kind}`, true);
  }
}
