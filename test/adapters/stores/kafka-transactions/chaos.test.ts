import { type ChildProcess, spawn } from 'node:child_process';
import { once as happened } from 'node:events';
import { describe, expect, it } from 'vitest';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';
import type { ChaosTask } from './chaos-worker.ts';
import { later, rig, valuesOf } from './rig.ts';

const partitions = 6;
const keys = 300;

function fleet(task: ChaosTask) {
  const script = new URL('chaos-worker.ts', import.meta.url).pathname;
  const alive: ChildProcess[] = [];
  const log: string[] = [];
  later(async () => {
    for (const child of alive) child.kill('SIGKILL');
  });
  return {
    alive,
    log,
    start() {
      const child = spawn(process.execPath, ['--no-warnings', script, JSON.stringify(task)], { stdio: ['ignore', 'ignore', 'pipe'] });
      child.stderr!.on('data', (text) => log.push(String(text)));
      alive.push(child);
    },
    take: (at: number) => alive.splice(at % alive.length, 1)[0]!,
  };
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Orders whose copies come later, in the same partition, with other orders in between. */
async function produce(made: Awaited<ReturnType<typeof rig>>, count: number, copies: number, number: () => number): Promise<string[]> {
  const ids = Array.from({ length: count }, (_, i) => `order-${i}`);
  const messageOf = (i: number) => ({
    key: `k${i % keys}`,
    value: JSON.stringify({ id: ids[i], key: `k${i % keys}` }),
    headers: { id: ids[i]! },
  });
  for (let at = 0; at < count; at += 1_000) {
    const messages = Array.from({ length: Math.min(1_000, count - at) }, (_, i) => messageOf(at + i));
    for (let copy = 0; copy < 1_000 * copies; copy++) messages.push(messageOf(Math.floor(number() * Math.min(count, at + 1_000))));
    await made.producer.send({ topic: made.input, messages });
    await sleep(300);
  }
  return ids;
}

/** Strikes until `forMs` are over and all orders are in, then lets everything run to its end. Answers what was done, and whether a committed offset ever went back. */
async function strike(
  made: Awaited<ReturnType<typeof rig>>,
  workers: ReturnType<typeof fleet>,
  producing: Promise<unknown>,
  forMs: number,
  number: () => number,
) {
  const done: Record<string, number> = { kill: 0, stall: 0, leave: 0 };
  let back = 0;
  let watching = true;
  const seen = new Map<number, number>();
  const offsets = async () => {
    const [topic] = await made.admin.fetchOffsets({ groupId: made.groupId, topics: [made.input] });
    for (const { partition, offset } of topic!.partitions) {
      if (Number(offset) < (seen.get(partition) ?? -1)) back++;
      seen.set(partition, Number(offset));
    }
  };
  const watch = (async () => {
    while (watching) {
      await offsets().catch(() => {});
      await sleep(100);
    }
  })();
  const until = performance.now() + forMs;
  while (performance.now() < until) {
    await sleep(500 + number() * 1_500);
    if (workers.alive.length < 2) continue;
    const what = (['kill', 'kill', 'stall', 'leave'] as const)[Math.floor(number() * 4)]!;
    const child = workers.take(Math.floor(number() * 10));
    done[what]!++;
    if (what === 'kill') child.kill('SIGKILL');
    if (what === 'leave') child.kill('SIGTERM');
    if (what === 'stall') {
      child.kill('SIGSTOP');
      void sleep(5_000).then(() => {
        child.kill('SIGCONT');
        workers.alive.push(child);
      });
    }
    if (what !== 'stall') workers.start();
  }
  await producing;
  const ends = await made.admin.fetchTopicOffsets(made.input);
  const isDone = () => ends.every(({ partition, high }) => Number(high) === 0 || seen.get(partition) === Number(high));
  for (const giveUpAt = performance.now() + 90_000; !isDone() && performance.now() < giveUpAt; ) await sleep(200);
  const finished = isDone();
  if (!finished) {
    workers.log.push(`committed ${JSON.stringify([...seen])} of ${JSON.stringify(ends.map(({ partition, high }) => [partition, high]))}\n`);
    for (const child of workers.alive) child.kill('SIGUSR2');
    await sleep(1_000);
  }
  watching = false;
  await watch;
  const left = await Promise.all(workers.alive.map(end));
  return { done, back, finished, stuck: left.filter((inOrder) => !inOrder).length };
}

/** Answers whether it has ended in good order. */
async function end(child: ChildProcess): Promise<boolean> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode === 0;
  const exit = happened(child, 'exit');
  child.kill('SIGTERM');
  const impatient = setTimeout(() => child.kill('SIGKILL'), 15_000);
  const [code] = await exit;
  clearTimeout(impatient);
  return code === 0;
}

function chaos(seed: number) {
  const { random } = virtualWorld({ seed });
  return () => random.number();
}

describe('three workers that are killed, stalled past their session, and leave, while orders come in', () => {
  it('ours: every order gets one receipt, in the order of its key, and no committed offset goes back; 10 % of the orders came twice', async () => {
    const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 1e9));
    const number = chaos(seed);
    const made = await rig({ partitions });
    const workers = fleet({ kind: 'ours', brokers: made.brokers, ...made.names });
    for (let i = 0; i < 3; i++) workers.start();
    const producing = produce(made, 50_000, 0.1, number);
    const { done, back, finished, stuck } = await strike(made, workers, producing, 20_000, number);
    const ids = await producing;
    console.log(
      `seed ${seed}: ${JSON.stringify(done)}, ${stuck} workers did not end in good order, workers told: ${workers.log.join('') || 'nothing'}`,
    );
    expect(finished, workers.log.slice(-20).join('')).toBe(true);
    expect(done['kill']! + done['stall']!).toBeGreaterThan(3);
    const all = await made.read();
    const counts = new Map<string, number>();
    for (const id of valuesOf(all)) counts.set(id, (counts.get(id) ?? 0) + 1);
    expect(
      [...counts].filter(([, count]) => count > 1),
      'more than once',
    ).toEqual([]);
    expect(
      ids.filter((id) => !counts.has(id)),
      'lost',
    ).toEqual([]);
    expect(counts.size).toBe(ids.length);
    for (const [key, of] of Map.groupBy(all, (each) => each.key)) {
      const order = of.map(({ value }) => Number(value.slice(6)));
      expect(order, key).toEqual([...order].sort((a, b) => a - b));
    }
    expect(back, 'committed offsets that went back').toBe(0);
  }, 240_000);

  it('plain kafkajs, in the same harness, makes duplicates, although no order came twice', async () => {
    const number = chaos(1);
    const made = await rig({ partitions });
    const workers = fleet({ kind: 'plain', brokers: made.brokers, ...made.names });
    for (let i = 0; i < 3; i++) workers.start();
    const producing = produce(made, 8_000, 0, number);
    const { done, finished } = await strike(made, workers, producing, 8_000, number);
    const ids = await producing;
    const all = valuesOf(await made.read());
    console.log(`plain: ${JSON.stringify(done)}, ${all.length - new Set(all).size} duplicates, ${ids.length - new Set(all).size} lost`);
    expect(finished).toBe(true);
    expect(all.length - new Set(all).size).toBeGreaterThan(0);
  }, 240_000);
});
