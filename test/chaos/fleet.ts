import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';

export type State = 'starting' | 'working' | 'stopped' | 'dead';

/** What was done to a worker, by the host's clock. `until`: when a stopped one went on. */
export interface Blow {
  readonly kind: 'kill' | 'stop' | 'stall';
  readonly at: number;
  until: number;
}

export interface Worker {
  state: State;
  readonly process: ChildProcess;
  readonly blows: Blow[];
}

/** Worker processes. Who is killed is replaced at once. */
export interface Fleet<Told> {
  /** All that there ever were, by pid. Pids are not taken twice in so short a time, and one that is makes the run fail. */
  readonly all: ReadonlyMap<number, Worker>;
  readonly working: readonly Worker[];
  /** What workers wrote when they ended without being killed. */
  readonly accidents: readonly string[];
  /** So many of them that nobody is hired any more. */
  readonly hopeless: boolean;
  kill(worker: Worker): void;
  /** Stops a worker, and lets it go on `forMs` later. Resolves when it does. */
  stop(worker: Worker, forMs: number): Promise<void>;
  answer(worker: Worker, answer: object): void;
  /** Asks all to end, and kills those that don't within 8 s. Answers how many that were. */
  dismiss(): Promise<number>;
  /** At once, for the end of this process. */
  killAll(): void;
  onTold: (worker: Worker, told: Told) => void;
}

export interface FleetOptions {
  readonly script: URL;
  readonly size: number;
  /** The only argument of the worker that is started as the n-th. */
  readonly task: (n: number) => object;
  /** Node keeps compiled code here: the next worker starts in a third of the time. */
  readonly cache: string;
}

const mostAccidents = 20;

export function startFleet<Told>({ script, size, task, cache }: FleetOptions): Fleet<Told> {
  const all = new Map<number, Worker>();
  const accidents: string[] = [];
  let started = 0;
  let dismissed = false;
  const alive = () => [...all.values()].filter(({ state }) => state !== 'dead');

  const fleet: Fleet<Told> = {
    all,
    get working() {
      return [...all.values()].filter(({ state }) => state === 'working');
    },
    accidents,
    get hopeless() {
      return accidents.length >= mostAccidents;
    },
    kill(worker) {
      if (worker.state === 'dead') return;
      worker.state = 'dead';
      worker.blows.push({ kind: 'kill', at: Date.now(), until: Number.POSITIVE_INFINITY });
      worker.process.kill('SIGKILL');
    },
    async stop(worker, forMs) {
      if (worker.state !== 'working') return;
      worker.state = 'stopped';
      const blow: Blow = { kind: 'stop', at: Date.now(), until: Number.POSITIVE_INFINITY };
      worker.blows.push(blow);
      worker.process.kill('SIGSTOP');
      await new Promise((resolve) => setTimeout(resolve, forMs));
      blow.until = Date.now();
      if (worker.state !== 'stopped') return;
      worker.state = 'working';
      worker.process.kill('SIGCONT');
    },
    answer(worker, answer) {
      if (worker.process.connected) worker.process.send(answer, () => {});
    },
    async dismiss() {
      dismissed = true;
      let killed = 0;
      await Promise.all(
        alive().map(async (worker) => {
          const { process } = worker;
          if (process.exitCode !== null || process.signalCode !== null) return;
          const impatient = setTimeout(() => {
            killed++;
            process.kill('SIGKILL');
          }, 8_000);
          const ended = once(process, 'exit');
          process.kill('SIGCONT');
          process.kill('SIGTERM');
          await ended;
          clearTimeout(impatient);
        }),
      );
      return killed;
    },
    killAll() {
      dismissed = true;
      for (const { process } of alive()) process.kill('SIGKILL');
    },
    onTold: () => {},
  };

  function hire(): void {
    const child = fork(script, [JSON.stringify(task(started++))], {
      env: { ...process.env, NODE_COMPILE_CACHE: cache },
      execArgv: ['--no-warnings'],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    const worker: Worker = { state: 'starting', process: child, blows: [] };
    if (child.pid !== undefined && all.has(child.pid)) accidents.push(`pid ${child.pid} was taken twice`);
    if (child.pid !== undefined) all.set(child.pid, worker);
    let lastWords = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (lastWords = (lastWords + text).slice(-2_000)));
    child.on('message', (told) => fleet.onTold(worker, told as Told));
    child.on('error', (error) => (lastWords += error.message));
    child.on('exit', (code, signal) => {
      const killed = worker.state === 'dead';
      worker.state = 'dead';
      if (dismissed) return;
      if (!killed) accidents.push(`a worker ended by itself (${signal ?? code}). ${lastWords.trim()}`);
      if (!fleet.hopeless) hire();
    });
  }
  for (let n = 0; n < size; n++) hire();
  return fleet;
}
