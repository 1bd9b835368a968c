import { describe, expect, it } from 'vitest';
import { type Life, live } from './family.ts';
import { rig, valuesOf } from './rig.ts';

const numbered = (count: number) => Array.from({ length: count }, (_, i) => `m${i}`);

async function untilItEnds(run: () => Promise<Life>): Promise<Life[]> {
  const lives: Life[] = [];
  while (lives.at(-1)?.code !== 0 && lives.length < 25) lives.push(await run());
  return lives;
}

describe('a message that kills its process', () => {
  it.each([
    ['the first of its batch', 0, 500],
    ['in the middle', 57, 500],
    ['the last', 119, 500],
    ['in small units', 30, 10],
  ])('is found, counted alone, and parked after maxAttempts; the others are handled once: %s', async (_, place, groupSize) => {
    const { input, output, dedupLog, groupId, brokers, read, committed } = await rig();
    const ids = numbered(120);
    const poison = ids[place]!;
    const task = { brokers, input, output, dedupLog, groupId, ids, dieAt: poison, maxAttempts: 3, groupSize };
    const lives = await untilItEnds(() => live(task));
    expect(lives.at(-1)!.code, 'it comes to an end').toBe(0);
    const counted = lives.flatMap(({ lines }) => lines.filter(({ started }) => started === poison).map(({ attempt }) => attempt));
    expect(counted.slice(-3), 'attempts').toEqual([1, 2, 3]);
    expect(counted.length, 'deaths').toBeLessThanOrEqual(3 + 4);
    const verdicts = new Map(lives.flatMap(({ lines }) => lines.filter(({ verdict }) => verdict).map(({ id, verdict }) => [id, verdict])));
    expect(verdicts.get(poison)).toMatchObject({ action: 'dead-letter', reason: 'max-attempts', attempts: 3 });
    for (const id of ids) if (id !== poison && verdicts.has(id)) expect(verdicts.get(id).action, id).toBe('ack');
    expect(valuesOf(await read()).sort()).toEqual(ids.filter((id) => id !== poison).sort());
    expect(await committed()).toBe('120');
  });

  it('messages of other partitions that die with it are not parked', async () => {
    const { input, output, dedupLog, groupId, brokers, read } = await rig({ partitions: 3 });
    const ids = numbered(6);
    // They never end before it kills, unless they run without it.
    const task = { brokers, input, output, dedupLog, groupId, ids, partitions: 3, dieAt: 'm0.1', maxAttempts: 2, slowMs: 400 };
    const lives = await untilItEnds(() => live(task));
    expect(lives.at(-1)!.code, 'it comes to an end').toBe(0);
    const all = [0, 1, 2].flatMap((partition) => ids.map((id) => (partition ? `${id}.${partition}` : id)));
    expect(valuesOf(await read()).sort()).toEqual(all.filter((id) => id !== 'm0.1').sort());
  });
});
