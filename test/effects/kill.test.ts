import { spawn } from 'node:child_process';
import { once as happened } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Verdict } from '../../src/index.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';
import type { Program, Task } from './child.ts';

const folder = mkdtempSync(join(tmpdir(), 'idempotent-steps-'));
const children = new Set<ReturnType<typeof spawn>>();
const leaseMs = 400;
let messages = 0;
let gateways: Record<'honoured' | 'ignored', Gateway>;

beforeAll(async () => {
  gateways = { honoured: await startGateway('honoured'), ignored: await startGateway('ignored') };
});
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await Promise.all(Object.values(gateways).map((gateway) => gateway.stop()));
  rmSync(folder, { recursive: true, force: true });
});

interface Told {
  readonly verdict: Verdict;
  readonly places: readonly string[];
}

function start(task: Task) {
  const script = new URL('child.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, JSON.stringify(task)], {
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

/** One message, its store, and its worker's program. */
function message(program: Program, keys: 'honoured' | 'ignored') {
  const gateway = gateways[keys];
  const id = `m${messages++}`;
  const task: Task = {
    ...{ store: `sqlite:${join(folder, `${id}.db`)}`, gateway: gateway.url, id, program },
    ...{ at: 0, signal: 'SIGKILL', leaseMs },
  };

  /** What has moved for it, in order. */
  async function moved(): Promise<string[]> {
    const own = (await gateway.transfers()).filter(({ what }) => what.startsWith(`${id} `));
    return own.map(({ what }) => what.slice(id.length + 1));
  }

  /** Delivers the message once. */
  async function deliver(change: Partial<Task> = {}): Promise<Told | 'killed'> {
    const worker = start({ ...task, ...change });
    const [code, signal] = await worker.ended;
    if (signal === 'SIGKILL') return 'killed';
    expect(code).toBe(0);
    return JSON.parse(await worker.line()) as Told;
  }

  /** Delivers it again until it is settled, as a broker would. */
  async function finish(): Promise<Told> {
    for (let tries = 0; tries < 30; tries++) {
      const told = await deliver();
      if (told === 'killed') throw new Error('A worker was killed that nobody wanted to kill');
      if (told.verdict.action !== 'retry') return told;
      await new Promise((resolve) => setTimeout(resolve, Math.min((told.verdict as { afterMs: number }).afterMs, 700)));
    }
    throw new Error('The message was never settled');
  }

  return { task, gateway, moved, deliver, finish };
}

/** Kills a worker at its n-th place, for each n, and delivers the message again each time. Answers what has moved, by place. */
async function killedEverywhere(program: Program, keys: 'honoured' | 'ignored'): Promise<Map<string, string[]>> {
  const { places, verdict } = await message(program, keys).finish();
  const outcomes = new Map<string, string[]>();
  const left = [...places.entries()];
  const killer = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const [i, place] = next;
      const { deliver, finish, moved } = message(program, keys);
      expect(await deliver({ at: i + 1 }), place).toBe('killed');
      expect((await finish()).verdict.action, place).toBe(verdict.action);
      outcomes.set(place, await moved());
    }
  };
  // They wait for leases most of the time.
  await Promise.all(Array.from({ length: 4 }, killer));
  return new Map(places.map((place) => [place, outcomes.get(place)!]));
}

const once = (outcomes: Map<string, string[]>, expected: readonly string[]) =>
  expect(Object.fromEntries(outcomes)).toEqual(Object.fromEntries([...outcomes.keys()].map((place) => [place, expected])));

describe('a worker that is killed wherever it waits, and whose message comes again', { timeout: 120_000 }, () => {
  it('without a helper: the money moves twice if it dies between the effect and the record', async () => {
    const outcomes = await killedEverywhere('no helper', 'honoured');
    expect(outcomes.get('after charge')).toEqual(['charge', 'charge']);
    expect(outcomes.get('before settle')).toEqual(['charge', 'charge']);
  });

  it('with a step, and a gateway that honours keys: the money moves once', async () => {
    const outcomes = await killedEverywhere('step', 'honoured');
    expect([...outcomes.keys()]).toEqual([
      ...['before claim', 'after claim', 'before read', 'after read', 'before charge', 'after charge'],
      ...['before write charge done', 'after write charge done', 'before settle', 'after settle'],
    ]);
    once(outcomes, ['charge']);
  });

  it('with a step, and a gateway that ignores keys: the money moves twice if it dies between the effect and its record', async () => {
    const outcomes = await killedEverywhere('step', 'ignored');
    const twice = [...outcomes].filter(([, what]) => what.length === 2).map(([place]) => place);
    expect(twice).toEqual(['after charge', 'before write charge done']);
    for (const what of outcomes.values()) expect(what.length).toBeGreaterThan(0);
  });

  it('with a step that has `confirm`, and a gateway that ignores keys: the money moves once', async () => {
    const outcomes = await killedEverywhere('confirm', 'ignored');
    expect(outcomes.size).toBe(12);
    once(outcomes, ['charge']);
  });

  it('with a saga that succeeds: each of its steps moves its money once', async () => {
    once(await killedEverywhere('saga', 'honoured'), ['flight', 'hotel', 'car']);
  });

  it('with a saga that fails for good: each step and each compensation moves its money once, in order', async () => {
    const outcomes = await killedEverywhere('refused saga', 'honoured');
    expect([...outcomes.keys()]).toContain('before write $trip/flight/undo done');
    once(outcomes, ['flight', 'hotel', 'undo hotel', 'undo flight']);
  });
});

describe('a gateway whose reply is lost', () => {
  it.each([
    ['no helper', 'honoured', 2],
    ['keys alone', 'honoured', 1],
    ['step', 'honoured', 1],
    ['step', 'ignored', 2],
    ['confirm', 'ignored', 1],
  ] as const)('%s, keys %s: the money moves %i times', async (program, keys, times) => {
    const { gateway, finish, moved } = message(program, keys);
    await gateway.disturb({ requests: 1, loses: true });
    expect((await finish()).verdict).toMatchObject({ action: 'ack' });
    expect(await moved()).toHaveLength(times);
  });
});

describe('a gateway that answers late, after its worker has died and the next one has asked', { timeout: 60_000 }, () => {
  it.each([
    // `confirm` is told that nothing has happened, because it has not happened yet.
    ['confirm', 'ignored', 2],
    ['confirm', 'honoured', 1],
    // It answers `unknown` as long as the request may be on its way.
    ['patient confirm', 'ignored', 1],
    ['step', 'honoured', 1],
  ] as const)('%s, keys %s: the money moves %i times', async (program, keys, times) => {
    const { gateway, task, finish, moved } = message(program, keys);
    await gateway.disturb({ requests: 1, delayMs: 2_000 });
    const victim = start(task);
    while (!(await gateway.asked()).includes(`${task.id} charge`)) await new Promise((resolve) => setTimeout(resolve, 20));
    victim.child.kill('SIGKILL');
    await victim.ended;
    expect(await moved()).toEqual([]);
    expect((await finish()).verdict).toMatchObject({ action: 'ack' });
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect(await moved()).toHaveLength(times);
  });
});

describe('a worker that is stopped past its lease, overlaps the new owner, and goes on', { timeout: 60_000 }, () => {
  it.each([
    ['no helper', 'honoured', 'before charge', 2],
    ['step', 'honoured', 'before charge', 1],
    ['step', 'honoured', 'after charge', 1],
    // The zombie wakes up with nothing between it and the gateway.
    ['step', 'ignored', 'before charge', 2],
    // The gateway has seen a greater fence.
    ['fenced step', 'ignored', 'before charge', 1],
    // It was stopped before it made its note, which is refused.
    ['confirm', 'ignored', 'before write charge started', 1],
  ] as const)('%s, keys %s, stopped %s: the money moves %i times', async (program, keys, place, times) => {
    const { task, deliver, finish, moved } = message(program, keys);
    const { places } = (await message(program, keys).deliver()) as Told;
    const zombie = start({ ...task, at: places.indexOf(place) + 1, signal: 'SIGSTOP' });
    expect(await zombie.line()).toBe(`here ${place}`);
    zombie.child.kill('SIGSTOP');
    expect((await finish()).verdict).toMatchObject({ action: 'ack' });
    zombie.child.kill('SIGCONT');
    zombie.child.stdin!.write('go on\n');
    const told = JSON.parse(await zombie.line()) as Told;
    await zombie.ended;
    expect(told.verdict).toMatchObject({ action: 'retry' });
    expect(await moved()).toHaveLength(times);
    // What the new owner recorded stands.
    expect(((await deliver()) as Told).verdict).toMatchObject({ action: 'ack', outcome: 'duplicate' });
  });
});
