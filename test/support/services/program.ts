import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A free port of the loopback address. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** A folder of its own for one program. */
export function temporaryFolder(name: string): Promise<string> {
  return mkdtemp(join(tmpdir(), `${name}-`));
}

/** A program that this process has started: faults can be made with it, each of which resolves when it has taken effect. */
export interface Program {
  /** Ends it without any warning. */
  kill(): Promise<void>;
  /** Stops it in the middle of whatever it does; connections stay open. */
  pause(): void;
  resume(): void;
  /** Ends it if it runs, and starts it on the same port and the same data. */
  restart(): Promise<void>;
  /** Ends it, and removes its folder. */
  stop(): Promise<void>;
}

const programs = new Set<() => void>();

/** Nothing that was started outlives this process, unless that is killed by SIGKILL. */
function killAtExit(kill: () => void): void {
  if (programs.size === 0) {
    process.once('exit', () => {
      for (const each of programs) each();
    });
    // A signal that nobody handles ends the process without `exit`.
    for (const [signal, code] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      if (process.listenerCount(signal) === 0) process.once(signal, () => process.exit(code));
    }
  }
  programs.add(kill);
}

/** Starts a program, and waits until its port is open. Its output goes to `log` in `folder`, which `stop` removes. */
export async function startProgram(
  command: string,
  args: readonly string[],
  options: { folder: string; port: number; withinMs?: number; uid?: number; env?: Record<string, string>; quit?: NodeJS.Signals },
): Promise<Program> {
  const { folder, port, withinMs = 60_000, uid, env, quit = 'SIGTERM' } = options;
  const log = join(folder, 'log');
  let child: ChildProcess | undefined;
  let exit: Promise<void> = Promise.resolve();

  async function launch(): Promise<void> {
    const file = await open(log, 'a');
    const started = spawn(command, args, {
      cwd: folder,
      stdio: ['ignore', file.fd, file.fd],
      ...(uid === undefined ? {} : { uid, gid: uid }),
      ...(env ? { env: { ...process.env, ...env } } : {}),
    });
    await file.close();
    let ended: string | undefined;
    child = started;
    exit = new Promise<void>((resolve) => {
      started.once('error', (error) => {
        ended = String(error);
        resolve();
      });
      started.once('exit', (code, signal) => {
        ended ??= `exit ${code ?? signal}`;
        resolve();
      });
    });
    for (const giveUpAt = performance.now() + withinMs; !(await isOpen(port)); ) {
      if (ended === undefined && performance.now() < giveUpAt) {
        await new Promise((resolve) => setTimeout(resolve, 25));
        continue;
      }
      const output = (await readFile(log, 'utf8').catch(() => '')).slice(-2_000);
      throw new Error(`${command} did not open port ${port}: ${ended ?? `not within ${withinMs} ms`}\n${output}`);
    }
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    child?.kill('SIGCONT');
    child?.kill(signal);
    const impatient = setTimeout(() => child?.kill('SIGKILL'), 5_000);
    await exit;
    clearTimeout(impatient);
  }

  const killNow = () => {
    child?.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  const stop = async () => {
    programs.delete(killNow);
    await end(quit);
    await rm(folder, { recursive: true, force: true });
  };
  killAtExit(killNow);
  try {
    await launch();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    kill: () => end('SIGKILL'),
    pause: () => void child?.kill('SIGSTOP'),
    resume: () => void child?.kill('SIGCONT'),
    async restart() {
      await end(quit);
      // What a killed program leaves behind (shared memory, locks) goes a moment after it.
      for (let left = 20; ; left--) {
        try {
          return await launch();
        } catch (error) {
          if (left === 0) throw error;
          await new Promise((resolve) => setTimeout(resolve, 250));
        }
      }
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

/** `group:artifact:version`. */
type Coordinates = `${string}:${string}:${string}`;

/**
 * The jars of a Maven artefact and all that it needs at run time, fetched once into `node_modules/.cache`. Two runs that fetch at once don't
 * see each other's halves.
 */
export async function mavenJars(coordinates: Coordinates, ...more: readonly Coordinates[]): Promise<string> {
  const [, artifactId, version] = coordinates.split(':');
  const cache = new URL('../../../node_modules/.cache/idempotent-receiver/', import.meta.url).pathname;
  const folder = join(cache, `${artifactId}-${version}`);
  if (existsSync(folder)) return folder;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, 'fetch-'));
  try {
    const dependencies = [coordinates, ...more].map((each) => {
      const [group, artifact, number] = each.split(':');
      return `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${number}</version></dependency>`;
    });
    const project = `<modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>test</artifactId><version>1</version>`;
    await writeFile(join(work, 'pom.xml'), `<project>${project}<dependencies>${dependencies.join('')}</dependencies></project>`);
    const jars = join(work, 'jars');
    const args = [
      '-q',
      '-B',
      '-f',
      join(work, 'pom.xml'),
      'dependency:copy-dependencies',
      '-DincludeScope=runtime',
      `-DoutputDirectory=${jars}`,
    ];
    await run('mvn', args, { timeout: 300_000 });
    await rename(jars, folder).catch((error: unknown) => {
      if (!existsSync(folder)) throw error;
    });
    return folder;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
