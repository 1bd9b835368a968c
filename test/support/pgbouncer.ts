import { execFile } from 'node:child_process';
import { chown, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { PostgresAddress } from './services/postgres.ts';
import { freePort, type Program, startProgram, temporaryFolder } from './services/program.ts';

const run = promisify(execFile);

/** PgBouncer in transaction mode before a server: each transaction may run in another session. Undefined if it is not there and can't be installed. */
export async function pgbouncer(server: PostgresAddress, sessions: number): Promise<(Program & { readonly url: string }) | undefined> {
  const isRoot = userInfo().uid === 0;
  const isThere = () =>
    run('pgbouncer', ['--version']).then(
      () => true,
      () => false,
    );
  if (!(await isThere())) {
    if (!isRoot) return undefined;
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    await run('apt-get', ['install', '-y', '--no-install-recommends', 'pgbouncer'], { env, timeout: 180_000 }).catch(() => {});
    if (!(await isThere())) return undefined;
  }
  const folder = await temporaryFolder('pgbouncer');
  const port = await freePort();
  const { host, user, password, database } = server;
  const file = join(folder, 'pgbouncer.ini');
  await writeFile(
    file,
    `[databases]
${database} = host=${host} port=${server.port} user=${user} password=${password} dbname=${database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = ${sessions}
max_client_conn = 500
`,
  );
  // It refuses to run as root.
  const uid = isRoot ? Number((await run('id', ['-u', 'nobody'])).stdout) : undefined;
  if (uid !== undefined) await Promise.all([folder, file].map((path) => chown(path, uid, uid)));
  const program = await startProgram('pgbouncer', [file], { folder, port, ...(uid === undefined ? {} : { uid }) });
  return { ...program, url: `postgres://${user}:${password}@127.0.0.1:${port}/${database}` };
}
