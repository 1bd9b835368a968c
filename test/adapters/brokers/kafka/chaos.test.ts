import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';
import type { ChildTask } from './child.ts';
import { type Child, child, type Effect, effectsFile } from './family.ts';
import { rig, until } from './rig.ts';

const partitions = 6;
const keys = 60;
const sessionTimeout = 1_500;

interface Found {
  /** What was done, and how often a consumer has joined because of it. */
  readonly faults: Record<'kill' | 'stop' | 'leave' | 'throw' | 'join', number>;
  readonly effects: readonly Effect[];
  /** How often each message was produced. */
  readonly produced: ReadonlyMap<string, number>;
  /** Commits that went back, by partition. */
  readonly setBack: string[];
}

/**
 * Three consumers that are killed, stopped past their session, and leave and join, while messages come in, one in ten of them twice. Then all is
 * well again until nothing is left.
 */
async function chaos(mode: ChildTask['mode'], count: number, seed: number): Promise<Found> {
  const { random } = virtualWorld({ seed });
  const chance = (n: number) => Math.floor(random.number() * n);
  const { brokers, topic, groupId, produce, admin } = await rig({ partitions });
  const { file, effects } = effectsFile();
  const faults = { kill: 0, stop: 0, leave: 0, throw: 0, join: 0 };
  const produced = new Map<string, number>();
  const setBack: string[] = [];
  const committed = new Map<number, number>();
  let over = false;

  const watching = (async () => {
    while (!over) {
      const [found] = await admin.fetchOffsets({ groupId, topics: [topic] }).catch(() => []);
      for (const { partition, offset } of found?.partitions ?? []) {
        const before = committed.get(partition) ?? -1;
        if (Number(offset) < before) setBack.push(`${partition}: ${before} to ${offset}`);
        committed.set(partition, Math.max(before, Number(offset)));
      }
      await pause(50);
    }
  })();

  const producing = (async () => {
    for (let n = 0; n < count; ) {
      const batch = [];
      for (const until = Math.min(count, n + count / 40); n < until; n++) {
        const key = `k${n % keys}`;
        const one = { id: `m${n}`, key, value: JSON.stringify({ id: `m${n}`, key, n }) };
        const times = chance(10) === 0 ? 2 : 1;
        produced.set(one.id, times);
        for (let i = 0; i < times; i++) batch.push(one);
      }
      await produce(batch);
      await pause(300);
    }
  })();

  const all: Child[] = [];
  const start = () => {
    const one = child({ brokers, topic, groupId, file, mode, sessionTimeout, throwEvery: 97 });
    all.push(one);
    return one;
  };
  const family: Child[] = [start(), start(), start()];
  let isDone = false;
  void producing.then(() => {
    isDone = true;
  });
  for (let n = 0; !isDone || n < 9; n++) {
    await pause(300 + chance(500));
    const awake = family.filter(({ isStopped }) => !isStopped);
    const one = awake[chance(awake.length)]!;
    const i = family.indexOf(one);
    const fault = (['kill', 'stop', 'leave'] as const)[n % 3]!;
    faults[fault]++;
    if (fault === 'kill') {
      one.signal('SIGKILL');
      await one.ended;
      family[i] = start();
    } else if (fault === 'leave') {
      void one.stop();
      family[i] = start();
    } else {
      one.signal('SIGSTOP');
      const at = pause(sessionTimeout * 2).then(() => one.signal('SIGCONT'));
      // At least one of the three is awake.
      if (awake.length === 2 || chance(2) === 0) await at;
    }
  }
  await producing;
  const isCaughtUp = async () => {
    const [found] = await admin.fetchOffsets({ groupId, topics: [topic] });
    const ends = await admin.fetchTopicOffsets(topic);
    return ends.every(({ partition, high }) => found!.partitions.some((each) => each.partition === partition && each.offset === high));
  };
  // Plain kafkajs may never get there: a handler's error stops it.
  await until(isCaughtUp, 'all to be committed', mode === 'plain' ? 20_000 : 60_000).catch((error: unknown) => {
    if (mode !== 'plain') throw error;
  });
  over = true;
  await watching;
  const said = all.flatMap(({ lines }) => lines);
  faults.throw = said.filter((line) => line === 'throw').length;
  faults.join = said.filter((line) => line.startsWith('joined')).length;
  return { faults, effects: effects(), produced, setBack };
}

/** What is wrong with the effects: missing, done too often, or in another order than their key's. */
function wrong({ effects, produced }: Found, allowed: (times: number) => number) {
  const done = new Map<string, number>();
  for (const { id } of effects) done.set(id, (done.get(id) ?? 0) + 1);
  const lost = [...produced.keys()].filter((id) => !done.has(id));
  const doubled = [...done].filter(([id, times]) => times > allowed(produced.get(id)!)).map(([id]) => id);
  const disordered = [...Map.groupBy(effects, ({ key }) => key)].filter(([, ofKey]) =>
    ofKey.some(({ n }, i) => i > 0 && n < ofKey[i - 1]!.n),
  );
  return { lost, doubled, disordered: disordered.map(([key]) => key) };
}

describe('three consumers that are killed, stopped past their session, leave and join, and whose handlers throw', () => {
  it.each([
    ['records', 50_000],
    ['watermark', 10_000],
    ['watermark only', 10_000],
  ] as const)(
    'with %s: of %i messages, one in ten sent twice, none is lost, none doubled, each key is in order, no offset goes back',
    async (mode, count) => {
      const seed = Date.now() % 1_000_000;
      const found = await chaos(mode, count, seed);
      const said = `seed ${seed}: ${JSON.stringify(found.faults)}`;
      console.log(`kafka chaos, ${mode}: ${said}`);
      // One offset once: what was sent twice is two messages for a watermark.
      expect(
        wrong(found, (times) => (mode === 'watermark only' ? times : 1)),
        said,
      ).toEqual({ lost: [], doubled: [], disordered: [] });
      expect(found.setBack, said).toEqual([]);
      const { kill, stop, leave, join } = found.faults;
      expect(Math.min(kill, stop, leave), `not exercised: ${said}`).toBeGreaterThan(2);
      expect(found.faults.throw, `not exercised: ${said}`).toBeGreaterThan(count / 100);
      // Whoever was killed or has left has a successor, and whoever was stopped has lost its place.
      expect(join, `not exercised: ${said}`).toBeGreaterThan(3 + kill + leave + stop / 2);
    },
    180_000,
  );

  it('plain kafkajs, as its README shows it, loses or doubles under the same faults: the harness sees it', async () => {
    // It may be lucky once.
    let wrongs = 0;
    for (let tries = 0; tries < 4 && wrongs === 0; tries++) {
      const seed = Date.now() % 1_000_000;
      const found = await chaos('plain', 10_000, seed);
      // What the producer sent twice is not held against it.
      const { lost, doubled } = wrong(found, (times) => times);
      console.log(`kafka chaos, plain: seed ${seed}: ${JSON.stringify(found.faults)}, ${lost.length} lost, ${doubled.length} doubled`);
      wrongs = lost.length + doubled.length;
    }
    expect(wrongs).toBeGreaterThan(0);
  }, 180_000);
});
