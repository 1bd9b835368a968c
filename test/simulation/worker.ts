import type { Clock, Random, World } from '../../src/clock.ts';
import type { Kernel, Planned } from '../../src/testing/virtual/kernel.ts';
import type { Stream } from './chance.ts';

/** The wall clock at the beginning of each run. */
export const epoch = Date.UTC(2026, 0, 1);

/** Why nothing of a worker moves any more. */
export type End = 'running' | 'crashed' | 'exited';

/**
 * One process of the fleet, from its start to its end: the world that the real receiver and the real poller in it see. Everything from outside
 * (replies, timers) comes through its inbox. A crashed worker's inbox is dropped, so no continuation of it ever runs again; a paused one's is
 * held, so that it wakes up as a zombie.
 */
export class Worker implements World {
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly kernel: Kernel;
  readonly startedAt: number;
  end: End = 'running';
  endedAt = Number.POSITIVE_INFINITY;
  /** Until when everything is held. */
  pausedUntil = 0;
  /** Timers of the receiver and the poller that have neither run nor been cancelled. Those of handlers are the user's, and not counted. */
  timers = 0;
  /** When anything went wrong for this worker: pauses, lost messages, outages. */
  readonly troubles: number[] = [];
  /** Those of them that may cost it a claim, and so make somebody do again what it has done. */
  readonly excuses: number[] = [];
  /** Called when it crashes: its connections break. */
  readonly onCrash = new Set<() => void>();

  /** `rate`: how fast its monotonic clock runs. The wall clock is set by others, and only wrong by `skewMs`. */
  constructor(kernel: Kernel, name: string, stream: Stream, skewMs: number, rate: number) {
    this.kernel = kernel;
    this.name = name;
    this.startedAt = kernel.now;
    const origin = stream.int(0, 1_000_000_000);
    let tokens = 0;
    this.clock = {
      now: () => kernel.now * rate + origin,
      wall: () => epoch + kernel.now + skewMs,
      after: (delayMs, task) => {
        this.timers++;
        const arrival = this.deliver(kernel.now + Math.max(0, delayMs) / rate, () => {
          this.timers--;
          task();
        });
        return () => {
          if (arrival.cancel()) this.timers--;
        };
      },
    };
    this.random = { number: () => stream.next(), token: () => `${name}-${++tokens}` };
  }

  get alive(): boolean {
    return this.end === 'running';
  }

  /** When something that leaves the worker now really leaves it. */
  get leavesAt(): number {
    return Math.max(this.kernel.now, this.pausedUntil);
  }

  /** Puts something into the inbox, to arrive at a time. */
  deliver(at: number, task: () => void): Arrival {
    return new Arrival(this, at, task);
  }

  /** The user's own waiting, in a handler. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.deliver(this.leavesAt + ms, resolve));
  }

  pause(ms: number): void {
    if (!this.alive) return;
    this.trouble(true);
    this.pausedUntil = Math.max(this.pausedUntil, this.kernel.now + ms);
    // Until it is awake again and has seen how late it is, everything is part of the trouble.
    this.trouble(true, this.pausedUntil);
  }

  trouble(isExcuse: boolean, at: number = this.kernel.now): void {
    this.troubles.push(at);
    if (isExcuse) this.excuses.push(at);
  }

  crash(): void {
    if (!this.alive) return;
    this.end = 'crashed';
    this.endedAt = this.kernel.now;
    for (const tell of [...this.onCrash]) tell();
    this.onCrash.clear();
  }

  /** After a clean stop. */
  exit(): void {
    if (!this.alive) return;
    this.end = 'exited';
    this.endedAt = this.kernel.now;
  }
}

/** Something in the inbox of a worker. */
class Arrival {
  readonly #worker: Worker;
  readonly #task: () => void;
  readonly #arrive = () => this.#come();
  #planned: Planned | undefined;

  constructor(worker: Worker, at: number, task: () => void) {
    this.#worker = worker;
    this.#task = task;
    this.#planned = worker.kernel.plan(at, this.#arrive);
  }

  /** Whether it was still to come. */
  cancel(): boolean {
    const planned = this.#planned;
    planned?.cancel();
    this.#planned = undefined;
    return planned !== undefined;
  }

  #come(): void {
    const { alive, kernel, pausedUntil } = this.#worker;
    if (!alive) return;
    // What has waited arrives when the pause ends, in the order in which it came.
    if (pausedUntil > kernel.now) this.#planned = kernel.plan(pausedUntil, this.#arrive);
    else {
      this.#planned = undefined;
      this.#task();
    }
  }
}
