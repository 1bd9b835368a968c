import { execFile } from 'node:child_process';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { promisify } from 'node:util';
import { freePort, type Program, startProgram, temporaryFolder } from './program.ts';
import type { Service } from './start.ts';

const run = promisify(execFile);

export interface RedisAddress {
  readonly host: string;
  readonly port: number;
  readonly url: string;
}

const addressOf = (host: string, port: number): RedisAddress => ({ host, port, url: `redis://${host}:${port}` });

/** Redis: no eviction, and nothing on disk unless a test asks for it. */
export const redis: Service<RedisAddress> = {
  title: 'Redis 7',
  variable: 'TEST_REDIS_URL',
  fromVariable(url) {
    const { hostname, port } = new URL(url);
    return { host: hostname, port: Number(port || 6379), url };
  },
  toVariable: ({ url }) => url,
  install: 'install it (Debian: apt-get install redis-server; done by itself when root)',
  async inDocker() {
    const { GenericContainer } = await import('testcontainers');
    const container = await new GenericContainer('redis:7')
      .withCommand(['redis-server', '--save', '', '--enable-debug-command', 'yes'])
      .withExposedPorts(6379)
      .start();
    return { address: addressOf(container.getHost(), container.getMappedPort(6379)), stop: async () => void (await container.stop()) };
  },
  async here(settings = []) {
    await installRedis();
    const port = await freePort();
    const folder = await temporaryFolder('redis');
    const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--enable-debug-command', 'yes', ...settings];
    return { address: addressOf('127.0.0.1', port), ...(await startRedis(args, { folder, port })) };
  },
};

/** Starts a node, and waits until it has read its data. */
export function startRedis(args: readonly string[], { folder, port }: { folder: string; port: number }): Promise<Program> {
  return startProgram('redis-server', args, { folder, port, isReady: () => answers(port) });
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    const done = (ready: boolean) => (socket.destroy(), resolve(ready));
    // A password that a test has set is answered by -NOAUTH.
    socket.once('data', (answer) => done(!String(answer).startsWith('-LOADING')));
    socket.once('error', () => done(false)).once('end', () => done(false));
  });
}

let installing: Promise<void> | undefined;

/** No registry of Node or Java brings Redis. Debian does, to root. */
export function installRedis(): Promise<void> {
  installing ??= (async () => {
    const there = await run('redis-server', ['--version']).then(
      () => true,
      () => false,
    );
    if (there) return;
    if (userInfo().uid !== 0) throw new Error('redis-server is not installed, and only root can install it');
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const install = () => run('apt-get', ['install', '-y', '--no-install-recommends', 'redis-server'], { env, timeout: 180_000 });
    // On a fresh machine the list of packages is empty or old.
    await install().catch(async () => {
      await run('apt-get', ['update'], { env, timeout: 180_000 });
      await install();
    });
  })();
  return installing;
}
