import { AsyncLocalStorage } from 'node:async_hooks';
import type { Clock, Random, World } from '../../clock.ts';
import type { Kernel } from '../virtual/kernel.ts';

/** The wall clock at the beginning of each run. */
const epoch = Date.UTC(2026, 0, 1);

/** The process whose code runs now. What it starts (promises, timers) belongs to it. */
export const current: AsyncLocalStorage<Process> = new AsyncLocalStorage<Process>();

/**
 * One process of the user's worker, from its start to its end. Everything from outside (replies, timers) comes through its inbox. That of a
 * killed one is dropped, so nothing of it ever runs again; that of one that stands still is held, so that it wakes up as a zombie.
 */
export class Process implements World {
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Called when it is killed: its connections break. */
  readonly onKill: Set<() => void> = new Set();
  /** Deliveries that it has and has not answered. */
  busy = 0;
  alive = true;
  #stillUntil = 0;
  readonly #kernel: Kernel;

  constructor(kernel: Kernel, name: string) {
    this.#kernel = kernel;
    this.name = name;
    let tokens = 0;
    this.clock = {
      now: () => kernel.now,
      wall: () => epoch + kernel.now,
      after: (delayMs, task) => this.deliver(kernel.now + Math.max(0, delayMs), task),
    };
    this.random = { number: () => 0.5, token: () => `${name}-${++tokens}` };
  }

  get standsStill(): boolean {
    return this.#stillUntil > this.#kernel.now;
  }

  /** When something that leaves the process now really leaves it. */
  get leavesAt(): number {
    return Math.max(this.#kernel.now, this.#stillUntil);
  }

  /** Puts something into the inbox, to arrive at a time. The answer takes it out. */
  deliver(at: number, task: () => void): () => void {
    let cancelled = false;
    const arrive = () => {
      if (cancelled || !this.alive) return;
      if (this.standsStill) return void this.#kernel.at(this.#stillUntil, arrive);
      this.run(task);
    };
    const cancel = this.#kernel.at(at, arrive);
    return () => {
      cancelled = true;
      cancel();
    };
  }

  /** Runs code as that of this process. */
  run<T>(task: () => T): T {
    return current.run(this, task);
  }

  standStill(ms: number): void {
    this.#stillUntil = this.leavesAt + ms;
  }

  kill(): void {
    if (!this.alive) return;
    this.alive = false;
    for (const tell of [...this.onKill]) tell();
    this.onKill.clear();
  }
}
