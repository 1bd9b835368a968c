import { spawn } from 'node:child_process';
import { expect, it } from 'vitest';

const module = new URL('ends-with-parent.ts', import.meta.url).href;

it('a program that a test has started ends when the test’s process is killed', async () => {
  const child = `import ${JSON.stringify(module)}; console.log(process.pid); setInterval(() => {}, 1e6);`;
  const parent = `import { spawn } from 'node:child_process';
    spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', ${JSON.stringify(child)}], { stdio: 'inherit' });`;
  const killed = spawn(process.execPath, ['--input-type=module', '-e', parent], { stdio: ['ignore', 'pipe', 'inherit'] });
  const pid = await new Promise<number>((resolve) => killed.stdout.once('data', (bytes) => resolve(Number(String(bytes)))));
  // The pipe is held open by both.
  const ended = new Promise((resolve) => killed.stdout.once('end', resolve));
  expect(process.kill(pid, 0)).toBe(true);
  killed.kill('SIGKILL');
  await ended;
});
