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
  readonly #entries: ReadonlyMap<string, Entry>;
  readonly #unasked: Set<string>;
  readonly #waiting = new Set<Waiting>();
  readonly #clock: Clock;
  #ended: { readonly reason: Error | undefined } | undefined;

  constructor(entries: readonly Entry[], retired: readonly string[], clock: Clock) {
    this.#entries = new Map(entries.map((entry) => [entry.name, entry]));
    this.#unasked = new Set([...this.#entries.keys()].filter((name) => isEffect(name) && !retired.includes(labelOf(name))));
    this.#clock = clock;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The entry of a name, which counts as asked for from now on. */
  ask(name: string): Entry | undefined {
    this.#unasked.delete(name);
    for (const waiting of this.#waiting) waiting.look();
    return this.#entries.get(name);
  }

  /** The entries whose names begin with `prefix` and that have not been asked for. */
  unasked(prefix: string = ''): readonly string[] {
    return [...this.#unasked].filter((name) => name.startsWith(prefix));
  }

  /**
   * Resolves when all entries whose names begin with `prefix` have been asked for. Parallel code may take a while to come to them, so
   * each that is asked for gives the others more time. @throws ReceiverError `steps-changed` when that is over
   */
  allAsked(prefix: string, what: string): Promise<void> {
    if (this.unasked(prefix).length === 0) return Promise.resolve();
    if (this.#ended) return Promise.reject(this.#ended.reason ?? changed(what, this.unasked(prefix)));
    return new Promise((resolve, reject) => {
      let cancel = () => {};
      const end = (settle: () => void) => {
        cancel();
        this.#waiting.delete(waiting);
        settle();
      };
      const waiting: Waiting = {
        look: () => {
          cancel();
          if (this.unasked(prefix).length === 0) return end(resolve);
          cancel = this.#clock.after(changedAfterMs, () => end(() => reject(changed(what, this.unasked(prefix)))));
        },
        end: (reason) => end(() => reject(reason ?? changed(what, this.unasked(prefix)))),
      };
      this.#waiting.add(waiting);
      waiting.look();
    });
  }

  /** Nobody else will ask: who still waits is told so, or the reason why it does not matter any more. */
  end(reason?: Error): void {
    this.#ended ??= { reason };
    for (const waiting of this.#waiting) waiting.end(reason);
  }
}

interface Waiting {
  look(): void;
  end(reason: Error | undefined): void;
}

export function changed(what: string, unasked: readonly string[]): ReceiverError {
  const names = unasked.slice(0, 5).map((name) => JSON.stringify(labelOf(name)));
  const more = unasked.length > names.length ? ` and ${unasked.length - names.length} more` : '';
  return new ReceiverError(
    'steps-changed',
    `An earlier attempt has done ${names.join(', ')}${more}, but this one ${what}. The code, or what it decides by, has changed: bring the step back, or name it in \`retiredSteps\``,
  );
}
