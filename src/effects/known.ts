import type { Clock } from '../clock.ts';
import { ReceiverError } from '../errors.ts';
import type { Entry } from './journal.ts';
import { isEffect, labelOf } from './names.ts';

/** How long a step that is not in the journal waits for the next one that is to be asked for. */
const changedAfterMs = 10_000;

/**
 * What earlier attempts have left in the journal, and how much of it this attempt has asked for again. Nothing new may be done before all
 * that is known has been asked for: a step that was renamed, moved or taken out of the code is found before another effect is added to its
 * own.
 */
export class Known {
  /** How many steps earlier attempts have begun. */
  readonly steps: number;
  readonly #entries: ReadonlyMap<string, Entry>;
  readonly #unasked: Set<string>;
  readonly #waiting = new Set<Waiting>();
  readonly #clock: Clock;
  #askedAt: number;
  #cancel: (() => void) | undefined;
  #ended: { readonly reason: Error | undefined } | undefined;

  constructor(entries: readonly Entry[], retired: readonly string[], clock: Clock) {
    this.#entries = new Map(entries.map((entry) => [entry.name, entry]));
    const steps = [...this.#entries.keys()].filter(isEffect);
    this.steps = steps.length;
    this.#unasked = new Set(steps.filter((name) => !retired.includes(labelOf(name))));
    this.#clock = clock;
    this.#askedAt = clock.now();
  }

  /** The entry of a name, which counts as asked for from now on. */
  ask(name: string): Entry | undefined {
    if (this.#unasked.delete(name)) {
      this.#askedAt = this.#clock.now();
      for (const waiting of this.#waiting) if (!this.#lacks(waiting.prefix)) this.#let(waiting, waiting.resolve);
    }
    return this.#entries.get(name);
  }

  /** The steps that have not been asked for. */
  unasked(prefix: string = ''): readonly string[] {
    return [...this.#unasked].filter((name) => name.startsWith(prefix));
  }

  /**
   * Resolves when all steps whose names begin with `prefix` have been asked for. Parallel code may take a while to come to them, so
   * each that is asked for gives the others more time. @throws ReceiverError `steps-changed` when that is over
   */
  allAsked(prefix: string, what: string): Promise<void> {
    if (!this.#lacks(prefix)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.add({ prefix, resolve, reject: (reason) => reject(reason ?? changed(what, this.unasked(prefix))) });
      if (this.#ended) this.end();
      else this.#cancel ??= this.#clock.after(changedAfterMs, () => this.#look());
    });
  }

  /** Nobody else will ask: who waits, or will, is told so, or the reason why it does not matter any more. */
  end(reason?: Error): void {
    this.#ended ??= { reason };
    for (const waiting of this.#waiting) this.#let(waiting, () => waiting.reject(this.#ended!.reason));
  }

  #lacks(prefix: string): boolean {
    for (const name of this.#unasked) if (name.startsWith(prefix)) return true;
    return false;
  }

  #look(): void {
    const leftMs = this.#askedAt + changedAfterMs - this.#clock.now();
    this.#cancel = leftMs > 0 ? this.#clock.after(leftMs, () => this.#look()) : undefined;
    if (!this.#cancel) for (const waiting of this.#waiting) this.#let(waiting, () => waiting.reject(undefined));
  }

  #let(waiting: Waiting, goOn: () => void): void {
    this.#waiting.delete(waiting);
    if (this.#waiting.size === 0) {
      this.#cancel?.();
      this.#cancel = undefined;
    }
    goOn();
  }
}

interface Waiting {
  readonly prefix: string;
  resolve(): void;
  /** With the reason, or because the code has changed. */
  reject(reason: Error | undefined): void;
}

export function changed(what: string, unasked: readonly string[]): ReceiverError {
  const names = unasked.slice(0, 5).map((name) => JSON.stringify(labelOf(name)));
  const more = unasked.length > names.length ? ` and ${unasked.length - names.length} more` : '';
  return new ReceiverError(
    'steps-changed',
    `An earlier attempt has done ${names.join(', ')}${more}, but this one ${what}. The code, or what it decides by, has changed: bring the step back, or name it in \`retiredSteps\``,
  );
}
