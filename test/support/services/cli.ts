/**
 * `npm run services -- up [names…] | status | down`: services for a developer's own use, that outlive a test run. `up` prints what to put into the
 * environment, so that `npm test` uses them.
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { type ServiceName, service, serviceNames, stopAll, variableOf } from './index.ts';

const folder = process.env['SERVICES_FOLDER'] ?? new URL('../../../node_modules/.cache/idempotent-receiver/', import.meta.url).pathname;
const stateFile = join(folder, 'services.json');
const logFile = join(folder, 'services.log');

interface State {
  /** Of the process that keeps them, and of no other: a pid or a port alone may be a stranger's by now. */
  readonly url: string;
  readonly variables: Readonly<Record<string, string>>;
}

const [command, ...names] = process.argv.slice(2);
const unknown = names.find((name) => !serviceNames.includes(name as ServiceName));
if (unknown) fail(`Expected some of ${serviceNames.join(', ')}, got ${unknown}`);
if (names.length > 0 && (command === 'status' || command === 'down')) fail(`Expected no names: ${command} is about all that are up`);
if (command === 'up') await up();
else if (command === 'keep') await keep(names as ServiceName[]);
else if (command === 'status') await status();
else if (command === 'down') await down();
else fail(`Expected up, status or down, got ${command ?? 'nothing'}`);

async function up(): Promise<void> {
  if (await running()) fail('They are up already: see `status`, or take them `down` first');
  mkdirSync(folder, { recursive: true });
  const log = openSync(logFile, 'w');
  const wanted = names.length > 0 ? names : serviceNames;
  const keeper = spawn(process.execPath, [...process.execArgv, import.meta.filename, 'keep', ...wanted], {
    detached: true,
    stdio: ['ignore', log, log],
  });
  let ended = false;
  keeper.once('exit', () => (ended = true));
  keeper.unref();
  while (!(await running())) {
    if (ended) fail(readFileSync(logFile, 'utf8'));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await status();
}

/** Runs until it is told to end: the services are its children, and end with it. */
async function keep(wanted: readonly ServiceName[]): Promise<void> {
  const variables: Record<string, string> = {};
  try {
    await Promise.all(
      wanted.map(async (name) => {
        const [variable, value] = variableOf(name, await service(name));
        variables[variable] = value;
      }),
    );
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    await stopAll();
    process.exit(1);
  }
  const path = `/${randomUUID()}`;
  const server = createServer(async ({ url, method }, response) => {
    if (url !== path) return void response.writeHead(404).end();
    if (method !== 'DELETE') return void response.end();
    await stopAll();
    rmSync(stateFile, { force: true });
    response.end(() => process.exit());
  });
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address() as { port: number };
    writeFileSync(stateFile, JSON.stringify({ url: `http://127.0.0.1:${port}${path}`, variables } satisfies State));
  });
}

async function status(): Promise<void> {
  const state = await running();
  if (!state) return void console.log('No services are up');
  for (const [name, value] of Object.entries(state.variables)) console.log(`export ${name}=${value}`);
}

async function down(): Promise<void> {
  const state = await running();
  if (!state) return void console.log('No services are up');
  await fetch(state.url, { method: 'DELETE' });
  console.log('All are down');
}

/** What is up, if its keeper answers. */
async function running(): Promise<State | undefined> {
  try {
    const state = JSON.parse(readFileSync(stateFile, 'utf8')) as State;
    const { ok } = await fetch(state.url, { signal: AbortSignal.timeout(5_000) });
    return ok ? state : undefined;
  } catch {
    return undefined;
  }
}

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
