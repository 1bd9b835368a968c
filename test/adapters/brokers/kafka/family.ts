import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, afterEach } from 'vitest';
import type { ChildTask } from './child.ts';
import { until } from './rig.ts';

const folder = mkdtempSync(join(tmpdir(), 'idempotent-receiver-kafka-'));
const children = new Set<ChildProcess>();
let files = 0;

afterEach(async () => {
  const ends = [...children].map(async (child) => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });
  await Promise.all(ends);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

export const newFile = (): string => join(folder, `${files++}.db`);

export interface Effect {
  readonly id: string;
  readonly key: string;
  readonly n: number;
  readonly pid: number;
}

/** A file for the effects of children. */
export function effectsFile() {
  const file = newFile();
  const db = new DatabaseSync(file);
  db.exec(
    'pragma journal_mode = wal; pragma busy_timeout = 10000; create table effects (place integer primary key, id text, key text, n integer, pid integer)',
  );
  return {
    file,
    effects: () => db.prepare('select id, key, n, pid from effects order by place').all() as unknown as Effect[],
    count: () => Number((db.prepare('select count(distinct id) as n from effects').get() as { n: number }).n),
  };
}

/** A child that runs `task`, and what it has said. */
export function child(task: ChildTask) {
  const script = new URL('child.ts', import.meta.url).pathname;
  const process_ = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--no-warnings', script, JSON.stringify(task)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.add(process_);
  const lines: string[] = [];
  createInterface(process_.stdout).on('line', (line) => void lines.push(line));
  let stopped = false;
  const ended = (once(process_, 'exit') as Promise<[number | null, NodeJS.Signals | null]>).finally(() => children.delete(process_));
  return {
    lines,
    ended,
    get isStopped() {
      return stopped;
    },
    said: (start: string) => until(() => lines.some((line) => line.startsWith(start)), `a child to say ${start}, which said ${lines}`),
    signal(signal: NodeJS.Signals) {
      stopped = signal === 'SIGSTOP';
      process_.kill(signal);
    },
    goOn: () => void process_.stdin.write('go on\n'),
    async stop() {
      process_.kill('SIGTERM');
      return ended;
    },
  };
}

export type Child = ReturnType<typeof child>;
