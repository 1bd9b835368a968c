/**
 * Chance by seed, in streams that don't disturb each other: what happens at one place does not depend on how often another one was asked.
 * So a schedule from which some faults were taken away stays as it was elsewhere, and can be minimised.
 */
export class Stream {
  #state: number;

  constructor(state: number) {
    this.#state = state >>> 0;
  }

  /** A number in [0, 1). Mulberry32, a public-domain generator by Tommy Ettinger. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  }

  /** A whole number from `from` to `to`, both included. */
  int(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  happens(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.next() * list.length)]!;
  }
}

/** FNV-1a with a last mix, so that near names have far streams. */
export function hash(seed: number, text: string): number {
  let h = (0x811c9dc5 ^ seed) >>> 0;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) >>> 0;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) >>> 0;
  return (h ^ (h >>> 16)) >>> 0;
}

/** A fault that has happened: where, as the how manieth there, and what. Its id alone makes it happen again. */
export interface Fault {
  readonly id: string;
  readonly at: number;
  readonly kind: string;
  /** In [0, 1), the same for the same id: for how long, and the like. */
  readonly size: number;
}

/** Probabilities by kind of fault. */
export type Odds<Kind extends string = string> = readonly (readonly [Kind, number])[];

/**
 * All chance of one run. In a replay `only` names the faults that happen, and no others do.
 */
export class Chance {
  readonly seed: number;
  readonly faults: Fault[] = [];
  /** No fault happens any more. */
  healed = false;
  readonly #only: ReadonlySet<string> | undefined;
  readonly #kinds = new Map<string, string>();

  constructor(seed: number, only?: ReadonlySet<string>) {
    this.seed = seed;
    this.#only = only;
    for (const id of only ?? []) {
      const colon = id.lastIndexOf(':');
      this.#kinds.set(id.slice(0, colon), id.slice(colon + 1));
    }
  }

  stream(name: string): Stream {
    return new Stream(hash(this.seed, name));
  }

  site(name: string): Site {
    return new Site(this, name);
  }

  /** A part of the scenario that is there unless a replay leaves it out. */
  keeps(id: string): boolean {
    const kept = !this.#only || this.#only.has(id);
    if (kept) this.faults.push({ id, at: 0, kind: 'scenario', size: 0 });
    return kept;
  }

  /** What a replay says about the call number `count` at a place; `undefined` if this is no replay. */
  replayed(name: string, count: number): { readonly kind: string | undefined } | undefined {
    return this.#only && { kind: this.#kinds.get(`${name}#${count}`) };
  }
}

/** A place where faults can happen, each time it is passed. */
export class Site {
  readonly name: string;
  readonly #chance: Chance;
  readonly #stream: Stream;
  #count = 0;

  constructor(chance: Chance, name: string) {
    this.name = name;
    this.#chance = chance;
    this.#stream = chance.stream(name);
  }

  draw<Kind extends string>(odds: Odds<Kind>, now: number): (Fault & { readonly kind: Kind }) | undefined {
    const count = this.#count++;
    const chance = this.#chance;
    if (chance.healed) return undefined;
    const replayed = chance.replayed(this.name, count);
    let kind = replayed?.kind as Kind | undefined;
    if (!replayed) {
      if (odds.length === 0) return undefined;
      let u = this.#stream.next();
      for (const [each, probability] of odds) {
        if (u < probability) {
          kind = each;
          break;
        }
        u -= probability;
      }
    }
    if (kind === undefined) return undefined;
    const id = `${this.name}#${count}:${kind}`;
    const fault = { id, at: now, kind, size: chance.stream(id).next() };
    chance.faults.push(fault);
    return fault;
  }
}
