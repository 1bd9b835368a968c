import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allGone, Family } from './processes.ts';

/** A free port of the loopback address, below those that systems give to whoever listens on any: nobody takes it while its program is down. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

const folders = new Set<string>();

/** A folder of its own for one program, removed with it, or at the end of this process. */
export async function temporaryFolder(name: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `${name}-`));
  folders.add(folder);
  endAllAtExit();
  return folder;
}

/** A program that this process has started, to make faults with. */
export interface Program {
  /** Ends it and the processes that it has started, without any warning. Resolves when none of them runs any more. */
  kill(): Promise<void>;
  /** Stops all its processes in the middle of whatever they do; connections stay open. */
  pause(): void;
  resume(): void;
  /** Ends it gracefully if it runs, and starts it on the same port and the same data. Resolves when it answers. */
  restart(): Promise<void>;
  /** Ends it, and removes its folder. */
  stop(): Promise<void>;
}

const families = new Set<Family>();
let willEndAll = false;

/** Nothing that was started outlives this process, unless that is killed by SIGKILL. */
function endAllAtExit(): void {
  if (willEndAll) return;
  willEndAll = true;
  process.once('exit', () => {
    for (const family of families) family.kill();
    // What was killed may still be about to write.
    for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
  });
  // A signal that nobody handles ends the process without `exit`.
  for (const [signal, code] of [
    ['SIGHUP', 129],
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    if (process.listenerCount(signal) === 0) process.once(signal, () => process.exit(code));
  }
}

interface ProgramOptions {
  /** Its output goes to `log` there. `stop` removes it. */
  readonly folder: string;
  readonly port: number;
  /** Whether it does its work already. Default: as soon as its port is open. */
  readonly isReady?: () => Promise<boolean>;
  readonly withinMs?: number;
  readonly uid?: number;
  /** Asks it to end. Default: SIGTERM. */
  readonly quit?: NodeJS.Signals;
}

/** Starts a program, and waits until it is ready. */
export async function startProgram(command: string, args: readonly string[], options: ProgramOptions): Promise<Program> {
  const { folder, port, isReady = () => isOpen(port), withinMs = 60_000, uid, quit = 'SIGTERM' } = options;
  const log = join(folder, 'log');
  let child: ChildProcess;
  let family: Family | undefined;
  let exit: Promise<void>;

  async function launch(): Promise<void> {
    const file = await open(log, 'a');
    const started = spawn(command, args, {
      cwd: folder,
      stdio: ['ignore', file.fd, file.fd],
      ...(uid === undefined ? {} : { uid, gid: uid }),
    });
    child = started;
    let ended: string | undefined;
    exit = new Promise<void>((resolve) => {
      started.once('error', (error) => {
        ended = String(error);
        resolve();
      });
      started.once('exit', (code, signal) => {
        ended ??= `exit ${code ?? signal}`;
        if (own) families.delete(own);
        // Its number may soon be somebody else's.
        family = undefined;
        resolve();
      });
    });
    const own = started.pid === undefined ? undefined : new Family(started.pid);
    if (own) families.add(own);
    family = own;
    await file.close();
    // Whoever answers after it has ended is a stranger on the same port.
    for (const giveUpAt = performance.now() + withinMs; !(await isReady()) || ended !== undefined; ) {
      if (ended === undefined && performance.now() < giveUpAt) {
        await new Promise((resolve) => setTimeout(resolve, 25));
        continue;
      }
      const output = (await readFile(log, 'utf8').catch(() => '')).slice(-2_000);
      throw new Error(`${command} is not ready on port ${port}: ${ended ?? `not within ${withinMs} ms`}\n${output}`);
    }
  }

  async function kill(): Promise<void> {
    await allGone(family?.kill() ?? []);
    await exit;
  }

  async function end(): Promise<void> {
    family?.resume();
    child.kill(quit);
    const impatient = setTimeout(() => void kill(), 5_000);
    await exit;
    clearTimeout(impatient);
  }

  const stop = async () => {
    await end();
    await rm(folder, { recursive: true, force: true });
    folders.delete(folder);
  };
  try {
    await launch();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    kill,
    pause: () => family?.pause(),
    resume: () => family?.resume(),
    async restart() {
      await end();
      await launch();
    },
    stop,
  };
}

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const done = (open: boolean) => (socket.destroy(), resolve(open));
    socket.once('connect', () => done(true)).once('error', () => done(false));
  });
}
