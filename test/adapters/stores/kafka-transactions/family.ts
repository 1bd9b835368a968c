import { type ChildProcess, spawn } from 'node:child_process';
import { once as happened } from 'node:events';
import { createInterface } from 'node:readline';
import type { Task } from './child.ts';
import { later } from './rig.ts';

export interface Life {
  readonly signal: string | null;
  readonly code: number | null;
  readonly lines: readonly any[];
}

/** Runs a child to its end. */
export async function live(task: Task): Promise<Life> {
  const script = new URL('child.ts', import.meta.url).pathname;
  const child: ChildProcess = spawn(process.execPath, ['--no-warnings', script, JSON.stringify(task)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  later(async () => void child.kill('SIGKILL'));
  const lines: unknown[] = [];
  const read = (async () => {
    for await (const line of createInterface(child.stdout!)) lines.push(JSON.parse(line));
  })();
  const [code, signal] = (await happened(child, 'exit')) as [number | null, string | null];
  await read;
  return { code, signal, lines };
}
