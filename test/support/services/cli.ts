/**
 * `npm run services -- up [names…] | status | down`: services for a developer's own use, that outlive a test run. `up` prints what to put into the
 * environment, so that `npm test` uses them.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type ServiceName, service, serviceNames, stopAll, variableOf } from './index.ts';

const folder = new URL('../../../node_modules/.cache/idempotent-receiver/', import.meta.url);
const stateFile = new URL('services.json', folder);
const logFile = new URL('services.log', folder);

interface State {
  /** Of the process that keeps them. */
  readonly pid: number;
  readonly variables: Readonly<Record<string, string>>;
}

const [command, ...names] = process.argv.slice(2);
const unknown = names.find((name) => !serviceNames.includes(name as ServiceName));
if (unknown) fail(`Expected some of ${serviceNames.join(', ')}, got ${unknown}`);
if (command === 'up') await up();
else if (command === 'keep') await keep(names as ServiceName[]);
else if (command === 'status') status();
else if (command === 'down') await down();
else fail(`Expected up, status or down, got ${command ?? 'nothing'}`);

async function up(): Promise<void> {
  if (running()) fail('They are up already: see `status`, or take them `down` first');
  mkdirSync(folder, { recursive: true });
  rmSync(stateFile, { force: true });
  const log = openSync(logFile, 'w');
  const wanted = names.length > 0 ? names : serviceNames;
  const keeper = spawn(process.execPath, [...process.execArgv, import.meta.filename, 'keep', ...wanted], {
    detached: true,
    stdio: ['ignore', log, log],
  });
  let code: number | null | undefined;
  keeper.once('exit', (exit) => (code = exit));
  keeper.unref();
  while (!running()) {
    if (code !== undefined) fail(readFileSync(logFile, 'utf8'));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  status();
}

/** Runs until it is told to end: the services are its children, and end with it. */
async function keep(wanted: readonly ServiceName[]): Promise<void> {
  const end = async () => {
    await stopAll();
    rmSync(stateFile, { force: true });
    process.exit(0);
  };
  process.on('SIGTERM', end);
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
  writeFileSync(stateFile, JSON.stringify({ pid: process.pid, variables } satisfies State));
  setInterval(() => {}, 1 << 30);
}

function status(): void {
  const state = running();
  if (!state) return void console.log('No services are up');
  for (const [name, value] of Object.entries(state.variables)) console.log(`export ${name}=${value}`);
}

async function down(): Promise<void> {
  const state = running();
  if (!state) return void console.log('No services are up');
  process.kill(state.pid, 'SIGTERM');
  while (running()) await new Promise((resolve) => setTimeout(resolve, 50));
  console.log('All are down');
}

/** What is up, if its keeper is alive. */
function running(): State | undefined {
  try {
    const state = JSON.parse(readFileSync(stateFile, 'utf8')) as State;
    process.kill(state.pid, 0);
    return state;
  } catch {
    return undefined;
  }
}

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
