import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createWriteStream, existsSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
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

/** Starts a program, and waits until its port is open. Its output goes to `log` in `folder`, which `stop` removes. */
export async function startProgram(
  command: string,
  args: readonly string[],
  { folder, port, withinMs = 30_000 }: { folder: string; port: number; withinMs?: number },
): Promise<{ pid: number; stop(): Promise<void> }> {
  const log = join(folder, 'log');
  const child = spawn(command, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const file = createWriteStream(log);
  child.stdout.pipe(file, { end: false });
  child.stderr.pipe(file, { end: false });
  let ended: string | undefined;
  const exit = new Promise<void>((resolve) => {
    child.once('error', (error) => ((ended = String(error)), resolve()));
    child.once('exit', (code, signal) => ((ended ??= `exit ${code ?? signal}`), resolve()));
  });
  const killNow = () => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', killNow);
  const stop = async () => {
    process.off('exit', killNow);
    await end(child, exit);
    await new Promise<void>((resolve) => file.end(resolve));
    await rm(folder, { recursive: true, force: true });
  };
  for (const giveUpAt = performance.now() + withinMs; !(await isOpen(port)); ) {
    if (ended === undefined && performance.now() < giveUpAt) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      continue;
    }
    const output = (await readFile(log, 'utf8').catch(() => '')).slice(-2_000);
    await stop();
    throw new Error(`${command} did not open port ${port}: ${ended ?? `not within ${withinMs} ms`}\n${output}`);
  }
  return { pid: child.pid!, stop };
}

async function end(child: ChildProcess, exit: Promise<void>): Promise<void> {
  child.kill('SIGTERM');
  const impatient = setTimeout(() => child.kill('SIGKILL'), 3_000);
  await exit;
  clearTimeout(impatient);
}

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const done = (open: boolean) => (socket.destroy(), resolve(open));
    socket.once('connect', () => done(true)).once('error', () => done(false));
  });
}

/**
 * The jars of a Maven artefact and all that it needs at run time, fetched once into `node_modules/.cache`. Two runs that fetch at once don't
 * see each other's halves.
 */
export async function mavenJars(coordinates: `${string}:${string}:${string}`): Promise<string> {
  const [groupId, artifactId, version] = coordinates.split(':');
  const cache = new URL('../../../node_modules/.cache/idempotent-receiver/', import.meta.url).pathname;
  const folder = join(cache, `${artifactId}-${version}`);
  if (existsSync(folder)) return folder;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, 'fetch-'));
  try {
    const dependency = `<dependency><groupId>${groupId}</groupId><artifactId>${artifactId}</artifactId><version>${version}</version></dependency>`;
    const project = `<modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>test</artifactId><version>1</version>`;
    await writeFile(join(work, 'pom.xml'), `<project>${project}<dependencies>${dependency}</dependencies></project>`);
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
