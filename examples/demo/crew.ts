import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Equipment, Told } from './client.ts';
import { visibilityMs, workersPerSide } from './settings.ts';

export type State = 'starting' | 'working' | 'stopped' | 'dead';

/** The worker processes of one side. Who dies is replaced at once. */
export interface Crew {
  readonly states: readonly State[];
  readonly counts: Counts;
  /** Resolves with the next worker that tells this, at that very moment. Undefined if `signal` is aborted first. */
  next(told: Told, signal: AbortSignal): Promise<Worker | undefined>;
  kill(worker: Worker): void;
  /** Stops a worker for a time, and lets it go on. */
  stall(worker: Worker, forMs: number): Promise<void>;
  /** Asks all to end, and kills those that don't. */
  dismiss(): Promise<void>;
  /** At once, for the end of this process. */
  killAll(): void;
}

export interface Counts extends Record<Told, number> {
  kills: number;
  /** Stops that lasted longer than the lease and the visibility. */
  stops: number;
}

export interface Worker {
  state: State;
  readonly process: ChildProcess;
}

/** `onAccident` is told what a worker wrote to stderr when it ended without being killed. That would be a bug. */
export function startCrew(script: string, equipment: Equipment, folder: string, onAccident: (lastWords: string) => void): Crew {
  const counts: Counts = { delivered: 0, begun: 0, checking: 0, duplicate: 0, kills: 0, stops: 0 };
  const crew: Worker[] = [];
  const waiting = new Map<(worker: Worker) => void, Told>();
  let dismissed = false;

  function hire(place: number): void {
    const child = fork(new URL(script, import.meta.url), [JSON.stringify(equipment)], {
      env: { ...process.env, NODE_COMPILE_CACHE: join(folder, 'compiled') },
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    const worker: Worker = { state: 'starting', process: child };
    crew[place] = worker;
    let lastWords = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (lastWords = (lastWords + text).slice(-4_000)));
    child.on('message', (what: Told) => listen(worker, what));
    child.on('error', (error) => (lastWords += error.message));
    child.on('close', (code, signal) => {
      const killed = worker.state === 'dead';
      worker.state = 'dead';
      if (dismissed) return;
      if (killed) hire(place);
      else onAccident(`${script} ended by itself (${signal ?? code}). ${lastWords.trim()}`);
    });
  }

  function listen(worker: Worker, told: Told): void {
    counts[told]++;
    // What a worker had written before it was stopped or killed is read all the same, and counted.
    if (worker.state === 'starting') worker.state = 'working';
    if (worker.state !== 'working') return;
    for (const [resolve, awaited] of waiting) if (awaited === told) resolve(worker);
  }

  for (let place = 0; place < workersPerSide; place++) hire(place);

  return {
    get states() {
      return crew.map(({ state }) => state);
    },
    counts,
    next: (told, signal) =>
      new Promise((resolve) => {
        const settle = (worker?: Worker) => {
          waiting.delete(settle);
          signal.removeEventListener('abort', giveUp);
          resolve(worker);
        };
        const giveUp = () => settle();
        waiting.set(settle, told);
        signal.addEventListener('abort', giveUp);
        if (signal.aborted) giveUp();
      }),
    kill(worker) {
      if (worker.state === 'dead') return;
      worker.state = 'dead';
      if (worker.process.kill('SIGKILL')) counts.kills++;
    },
    async stall(worker, forMs) {
      if (worker.state !== 'working' || !worker.process.kill('SIGSTOP')) return;
      worker.state = 'stopped';
      const stoppedAt = performance.now();
      await new Promise((resolve) => setTimeout(resolve, forMs));
      if (worker.state !== 'stopped' || !worker.process.kill('SIGCONT')) return;
      worker.state = 'working';
      if (performance.now() - stoppedAt > visibilityMs) counts.stops++;
    },
    async dismiss() {
      dismissed = true;
      const alive = crew.filter(({ state }) => state !== 'dead');
      const impatience = setTimeout(() => alive.forEach(({ process }) => process.kill('SIGKILL')), 5_000);
      await Promise.all(
        alive.map(async ({ process }) => {
          process.kill('SIGTERM');
          if (process.exitCode === null && process.signalCode === null) await once(process, 'exit');
        }),
      );
      clearTimeout(impatience);
    },
    killAll() {
      dismissed = true;
      for (const { process } of crew) process.kill('SIGKILL');
    },
  };
}
