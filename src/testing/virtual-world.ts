import type { World } from '../clock.ts';

/** A world whose time moves only when it is told to, and whose chance repeats by seed. */
export interface VirtualWorld extends World {
  /** Moves time forward, running every timer that falls due in its order, and everything that follows from it. */
  advance(ms: number): Promise<void>;
  /** Lets everything run that can run without time passing. */
  settle(): Promise<void>;
  /** Timers that have neither run nor been cancelled. */
  readonly timers: number;
}

/** Makes a virtual world. `startAt` is its wall clock, in milliseconds since the Unix epoch. */
export function virtualWorld(options: { readonly seed?: number; readonly startAt?: number } = {}): VirtualWorld {
  const startAt = options.startAt ?? Date.UTC(2026, 0, 1);
  const timers = new Map<number, { readonly at: number; readonly task: () => void }>();
  let now = 0;
  let made = 0;
  let state = (options.seed ?? 1) >>> 0;

  /** Mulberry32, a public-domain generator by Tommy Ettinger. */
  function number(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  }

  function nextDue(until: number): [number, { readonly at: number; readonly task: () => void }] | undefined {
    let next: [number, { readonly at: number; readonly task: () => void }] | undefined;
    for (const entry of timers) if (entry[1].at <= until && (!next || entry[1].at < next[1].at)) next = entry;
    return next;
  }

  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

  return {
    clock: {
      now: () => now,
      wall: () => startAt + now,
      after(delayMs, task) {
        const id = made++;
        timers.set(id, { at: now + Math.max(0, delayMs), task });
        return () => void timers.delete(id);
      },
    },
    random: {
      number,
      token: () => `token-${made++}-${Math.floor(number() * 2 ** 32).toString(36)}`,
    },
    settle,
    async advance(ms) {
      const until = now + ms;
      await settle();
      for (let due = nextDue(until); due; due = nextDue(until)) {
        timers.delete(due[0]);
        now = due[1].at;
        due[1].task();
        await settle();
      }
      now = until;
    },
    get timers() {
      return timers.size;
    },
  };
}
