import type { Kernel } from '../virtual/kernel.ts';
import { type Calls, NetworkError } from '../virtual/network.ts';
import { type FaultKind, told } from './faults.ts';
import type { Process } from './process.ts';

/** What decides about the steps of a run, and remembers them. */
export interface Director {
  readonly kernel: Kernel;
  /** Called once for each step, in their order. Answers what is to happen to it. */
  step(op: string): FaultKind | undefined;
  /** A copy of each message comes to another process. */
  copy(): void;
  /** Called when a process that stood still goes on. */
  awake(): void;
  tell(process: Process, text: string): void;
}

/** Longer than any lease, visibility timeout or transaction that is left idle. */
const standStillMs = 30 * 60_000;

/** A new one each time: whoever waits for a promise is kept by it. */
const never = () => new Promise<never>(() => {});

/** The way of one process to everything outside. Each request is a step, and each step can go wrong. */
export class Link implements Calls {
  readonly #process: Process;
  readonly #director: Director;

  constructor(process: Process, director: Director) {
    this.#process = process;
    this.#director = director;
  }

  /** `tell`: what the story says when it has been done; quiet steps are told only by their faults. */
  call<T>(op: string, run: () => T | Promise<T>, tell?: (done: T) => string): Promise<T> {
    const process = this.#process;
    const { kernel } = this.#director;
    if (!process.alive) return never();
    const fault = this.#director.step(op);
    const tellFault = (kind: FaultKind) => this.#director.tell(process, told[kind](op));
    const comesAfter = fault === 'killed after' || fault === 'reply lost' || fault === 'stands still after';
    if (fault && !comesAfter) tellFault(fault);
    if (fault === 'copy comes') this.#director.copy();
    if (fault === 'killed before') {
      process.kill();
      return never();
    }
    if (fault === 'stands still before') this.#standStill();
    const leavesAt = process.leavesAt;
    return new Promise<T>((resolve, reject) => {
      const answer = (take: () => void) => process.deliver(kernel.now + 1, take);
      const fail = (text: string) => answer(() => reject(new NetworkError(`${op}: ${text}`)));
      const done = (value: T) => {
        if (tell) this.#director.tell(process, tell(value));
        if (fault === 'reply lost') fail('the reply was lost');
        else answer(() => resolve(value));
      };
      const arrive = () => {
        if (fault === 'request lost') return void fail('the request was lost');
        try {
          const ran = run();
          if (ran instanceof Promise) ran.then(done, (error: unknown) => answer(() => reject(error)));
          else done(ran);
        } catch (error) {
          answer(() => reject(error));
        }
        if (comesAfter) tellFault(fault);
      };
      kernel.at(leavesAt + 1, arrive);
      if (fault === 'killed after') kernel.at(leavesAt + 1, () => process.kill());
      if (fault === 'stands still after') this.#standStill();
    });
  }

  #standStill(): void {
    this.#process.standStill(standStillMs);
    this.#director.kernel.at(this.#process.leavesAt, () => this.#director.awake());
  }
}
