import { current, type Process } from './process.ts';

const real = { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate, now: Date.now };

/** A timer as Node's own, as far as anybody looks at one. */
class Timer {
  cancel: () => void;

  constructor(cancel: () => void) {
    this.cancel = cancel;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }

  [Symbol.dispose](): void {
    this.cancel();
  }
}

let users = 0;

/**
 * While somebody proves, the timers and the date of proved code are those of its virtual process, so that a timer which a handler leaves
 * running dies with it. All other code keeps the real ones. The answer puts everything back.
 */
export function virtualGlobals(): () => void {
  if (users++ === 0) {
    const clear = (timer: unknown, orElse: (timer: never) => void) => (timer instanceof Timer ? timer.cancel() : orElse(timer as never));
    const fake = {
      setTimeout: (task: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) =>
        inside((process) => once(process, ms, () => task(...args))) ?? real.setTimeout(task, ms, ...args),
      setInterval: (task: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) =>
        inside((process) => repeat(process, ms, () => task(...args))) ?? real.setInterval(task, ms, ...args),
      setImmediate: (task: (...args: unknown[]) => void, ...args: unknown[]) =>
        inside((process) => once(process, 0, () => task(...args))) ?? real.setImmediate(task, ...args),
      clearTimeout: (timer: unknown) => clear(timer, real.clearTimeout),
      clearInterval: (timer: unknown) => clear(timer, real.clearInterval),
      clearImmediate: (timer: unknown) => clear(timer, real.clearImmediate),
    };
    Object.assign(globalThis, fake);
    Date.now = () => current.getStore()?.clock.wall() ?? real.now();
  }
  return () => {
    if (--users > 0) return;
    const { now, ...timers } = real;
    Object.assign(globalThis, timers);
    Date.now = now;
  };
}

function inside(make: (process: Process) => Timer): Timer | undefined {
  const process = current.getStore();
  return process && make(process);
}

function once(process: Process, ms: number, task: () => void): Timer {
  return new Timer(process.clock.after(ms, task));
}

function repeat(process: Process, ms: number, task: () => void): Timer {
  const timer: Timer = new Timer(() => {});
  const next = () => {
    timer.cancel = process.clock.after(Math.max(1, ms), () => {
      next();
      task();
    });
  };
  next();
  return timer;
}
