/** Something that a handler changes outside of itself. */
export interface Effect {
  /** What is done: `charge`, `mail`. */
  readonly name: string;
  /** About what it is done: the order's id. */
  readonly about: string;
}

/** How often an effect has to happen for each thing that it is about. */
export type Expectation = 'once' | 'at-least-once' | 'any';

/** What has happened outside, in the whole run. */
export class Ledger {
  readonly #counts = new Map<string, { readonly effect: Effect; count: number }>();
  readonly #keys = new Set<string>();

  /** `key`: the system outside honours idempotency keys, and does nothing for one that it has seen. Answers whether it did something. */
  apply(effect: Effect, key?: string): boolean {
    if (key !== undefined) {
      const known = JSON.stringify([effect.name, key]);
      if (this.#keys.has(known)) return false;
      this.#keys.add(known);
    }
    this.#entry(effect).count++;
    return true;
  }

  count(effect: Effect): number {
    return this.#counts.get(nameOf(effect))?.count ?? 0;
  }

  get effects(): readonly Effect[] {
    return [...this.#counts.values()].map(({ effect }) => effect);
  }

  #entry(effect: Effect): { count: number } {
    const name = nameOf(effect);
    let entry = this.#counts.get(name);
    if (!entry) {
      entry = { effect, count: 0 };
      this.#counts.set(name, entry);
    }
    return entry;
  }
}

/** What differs from the run without faults, or undefined. */
export function difference(is: Ledger, should: Ledger, expect: Readonly<Record<string, Expectation>>): Difference | undefined {
  for (const effect of [...should.effects, ...is.effects]) {
    const expected = expect[effect.name] ?? 'once';
    const wanted = should.count(effect);
    const got = is.count(effect);
    if (expected === 'any' || got === wanted || (expected === 'at-least-once' && got > wanted)) continue;
    return { effect, wanted, got };
  }
  return undefined;
}

/** One effect that was lost, or that came too often. */
export interface Difference {
  readonly effect: Effect;
  readonly wanted: number;
  readonly got: number;
}

function nameOf({ name, about }: Effect): string {
  return JSON.stringify([name, about]);
}
