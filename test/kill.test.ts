import { type ChildProcess, spawn } from 'node:child_process';
import { once as happened } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, describe, expect, it } from 'vitest';
import { deaths, titleOf } from './support/failures.ts';

const folder = mkdtempSync(join(tmpdir(), 'idempotent-receiver-'));
const children = new Set<ChildProcess>();
let files = 0;

afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const newFile = () => join(folder, `${files++}.db`);

/** Starts a worker for message "a". */
function worker(file: string, guarantee: string, border: string) {
  const script = new URL('support/victim.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, file, guarantee, border, 'a'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.add(child);
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  return {
    child,
    line: async () => (await lines.next()).value as string,
    ended: happened(child, 'exit').finally(() => children.delete(child)) as Promise<[number | null, string | null]>,
  };
}

/** Delivers the message again until it is acked, as a broker would; answers with the last verdict. */
async function redeliver(file: string, guarantee: string): Promise<{ outcome: string; tries: number }> {
  for (let tries = 1; tries <= 20; tries++) {
    const again = worker(file, guarantee, 'again');
    const verdict = JSON.parse(await again.line());
    await again.ended;
    if (verdict.action === 'ack') return { outcome: verdict.outcome, tries };
    await new Promise((resolve) => setTimeout(resolve, Math.min(verdict.afterMs, 700)));
  }
  throw new Error('The message was never acked');
}

function effectsIn(file: string): number {
  const db = new DatabaseSync(file, { readOnly: true });
  const [row] = db.prepare('select count(*) as n from effects').all();
  db.close();
  return Number(row!['n']);
}

describe('a worker that is killed', () => {
  it.each(deaths.map((death) => [titleOf(death), death] as const))('%s', async (_, { guarantee, border, outcome, effects }) => {
    const file = newFile();
    const victim = worker(file, guarantee, `kill ${border}`);
    expect((await victim.ended)[1]).toBe('SIGKILL');
    expect((await redeliver(file, guarantee)).outcome).toBe(outcome);
    expect(effectsIn(file)).toBe(effects);
  });
});

describe('a worker that is stopped past its lease and goes on', () => {
  it('leased: its outcome is refused, and the new owner keeps its own', async () => {
    const file = newFile();
    const zombie = worker(file, 'leased', 'stop before effect');
    expect(await zombie.line()).toBe('here');
    zombie.child.kill('SIGSTOP');
    expect(await redeliver(file, 'leased')).toMatchObject({ outcome: 'completed' });
    zombie.child.kill('SIGCONT');
    zombie.child.stdin!.write('go on\n');
    expect(JSON.parse(await zombie.line())).toMatchObject({ action: 'retry', reason: 'fenced' });
    await zombie.ended;
    // Both handlers ran: that is what `leased` can't prevent, and says so.
    expect(effectsIn(file)).toBe(2);
  });

  it('transactional: whoever commits first, the effect happens once', async () => {
    const file = newFile();
    const zombie = worker(file, 'transactional', 'stop before effect');
    expect(await zombie.line()).toBe('here');
    zombie.child.kill('SIGSTOP');
    const redelivered = redeliver(file, 'transactional');
    // The zombie holds SQLite's write lock, so the new owner has to wait for it.
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    zombie.child.kill('SIGCONT');
    zombie.child.stdin!.write('go on\n');
    expect(JSON.parse(await zombie.line())).toMatchObject({ action: 'ack', outcome: 'completed' });
    expect(await redelivered).toMatchObject({ outcome: 'duplicate' });
    await zombie.ended;
    expect(effectsIn(file)).toBe(1);
  });
});
