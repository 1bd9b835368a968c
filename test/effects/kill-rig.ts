import { spawn } from 'node:child_process';
import { once as happened } from 'node:events';
import { createInterface } from 'node:readline';
import { expect } from 'vitest';
import type { Verdict } from '../../src/index.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';
import type { Program, Task } from './child.ts';

export interface Told {
  readonly verdict: Verdict;
  readonly places: readonly string[];
  /** What there is in the database, of a program that writes there. */
  readonly rows: string[];
}

/** Gateways, and workers in processes of their own that are killed. `storeOf` names the store of a message, for child.ts. */
export async function killRig(storeOf: (id: string) => string, leaseMs = 400) {
  const gateways: Record<'honoured' | 'ignored', Gateway> = {
    honoured: await startGateway('honoured'),
    ignored: await startGateway('ignored'),
  };
  const children = new Set<ReturnType<typeof spawn>>();
  let messages = 0;

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
      ...{ store: storeOf(id), gateway: gateway.url, id, program },
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
        await new Promise((resolve) => setTimeout(resolve, Math.min((told.verdict as { afterMs: number }).afterMs, leaseMs + 300)));
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
        const told = await finish();
        expect(told.verdict.action, place).toBe(verdict.action);
        outcomes.set(place, program.startsWith('row') ? told.rows : await moved());
      }
    };
    // They wait for leases most of the time.
    await Promise.all(Array.from({ length: 6 }, killer));
    return new Map(places.map((place) => [place, outcomes.get(place)!]));
  }

  /** Stops a worker at a place past its lease, until another has done its message. Answers what has moved when both have ended. */
  async function overtakenAt(place: string, program: Program, keys: 'honoured' | 'ignored'): Promise<string[]> {
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
    // What the new owner recorded stands.
    expect(((await deliver()) as Told).verdict).toMatchObject({ action: 'ack', outcome: 'duplicate' });
    return moved();
  }

  async function close(): Promise<void> {
    for (const child of children) child.kill('SIGKILL');
    await Promise.all(Object.values(gateways).map((gateway) => gateway.stop()));
  }

  return { start, message, killedEverywhere, overtakenAt, close };
}

/** Whatever the place, all attempts have moved the same. */
export function expectSame(outcomes: Map<string, string[]>): void {
  for (const [place, what] of outcomes) expect(new Set(what).size, `${place}: ${what}`).toBe(1);
  expect(outcomes.get('before settle')).toHaveLength(2);
}

/** Whatever the place, this has moved. */
export const expectAlways = (outcomes: Map<string, string[]>, expected: readonly string[]): void =>
  expect(Object.fromEntries(outcomes)).toEqual(Object.fromEntries([...outcomes.keys()].map((place) => [place, expected])));
