/** Offsets from `first` to `last`, both included. */
export type Range = readonly [first: number, last: number];

/** How far a partition is handled: everything below `next`, and the ranges in `done`, which are all above it, in order. */
export interface Mark {
  readonly next: number;
  readonly done: readonly Range[];
}

/**
 * Which offsets of one partition are done. It has no I/O. Offsets are taken in ascending order, finished in any order, and `next` moves only
 * over what is finished without a gap. An offset between two that were taken, but not taken itself, does not exist for a consumer (compacted
 * away, or a record of a transaction): it counts as done.
 *
 * Memory: one number for each offset that is open, nothing for those that are done.
 */
export class OffsetTracker {
  /** Taken and not finished. A set keeps the order in which offsets were added, which is ascending. */
  readonly #open = new Set<number>();
  /** Done before they were met here. */
  #known: readonly Range[];
  #position: number;

  /** Begins at `known.next`: what is below it is done. */
  constructor(known: Mark) {
    this.#position = known.next;
    this.#known = known.done;
  }

  /** The first offset that is not done: the one to read next for whoever takes over. */
  get next(): number {
    return this.nextWith(nothing);
  }

  /** Everything below it has been taken, or does not exist. */
  get position(): number {
    return this.#position;
  }

  /** From the first offset that is not done to the highest one taken. */
  get span(): number {
    return this.#position - this.next;
  }

  isOpen(offset: number): boolean {
    return this.#open.has(offset);
  }

  /** False if there is nothing to do: it is done, or being done. */
  take(offset: number): boolean {
    if (offset < this.#position) return false;
    this.#position = offset + 1;
    if (isIn(this.#known, offset)) return false;
    this.#open.add(offset);
    return true;
  }

  /** Everything below `position` has been taken, or does not exist. */
  reach(position: number): void {
    this.#position = Math.max(this.#position, position);
  }

  finish(offset: number): void {
    this.#open.delete(offset);
  }

  /** What `next` would be if `also` were finished. */
  nextWith(also: ReadonlySet<number>): number {
    for (const offset of this.#open) if (!also.has(offset)) return offset;
    return this.#position;
  }

  /** What is done if `also` is finished. */
  markWith(also: ReadonlySet<number>): Mark {
    const next = this.nextWith(also);
    const done: Range[] = [];
    let at = next;
    for (const offset of this.#open) {
      if (also.has(offset)) continue;
      if (offset > at) done.push([at, offset - 1]);
      at = offset + 1;
    }
    if (this.#position > at) done.push([at, this.#position - 1]);
    for (const [first, last] of this.#known) if (last >= this.#position) done.push([Math.max(first, this.#position), last]);
    return { next, done: joined(done) };
  }

  /** Takes over what another account says is done. Nothing becomes undone. */
  learn({ next, done }: Mark): void {
    this.#known = done;
    this.reach(next);
    for (const offset of this.#open) if (offset < next || isIn(done, offset)) this.#open.delete(offset);
  }
}

const nothing: ReadonlySet<number> = new Set();

function isIn(ranges: readonly Range[], offset: number): boolean {
  return ranges.some(([first, last]) => offset >= first && offset <= last);
}

function joined(ranges: readonly Range[]): Range[] {
  const all: Range[] = [];
  for (const [first, last] of ranges) {
    const before = all.at(-1);
    if (before && before[1] + 1 >= first) all[all.length - 1] = [before[0], Math.max(before[1], last)];
    else all.push([first, last]);
  }
  return all;
}

/** Ranges as text, for a row: `105-110 112-112`. */
export function rangesText(ranges: readonly Range[]): string {
  return ranges.map(([first, last]) => `${first}-${last}`).join(' ');
}

export function rangesOf(text: string): Range[] {
  return text === '' ? [] : text.split(' ').map((range) => range.split('-').map(Number) as unknown as Range);
}
