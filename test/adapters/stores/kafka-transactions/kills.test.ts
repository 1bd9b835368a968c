import { describe, expect, it } from 'vitest';
import { actions } from '../../../support/stand.ts';
import { live } from './family.ts';
import { deliveries, rig, valuesOf } from './rig.ts';

const ids = ['a', 'b', 'c'];

describe('a worker that is killed', () => {
  it.each([
    ['in the handler', 'completed'],
    ['before the messages are sent', 'completed'],
    ['after the messages are sent', 'completed'],
    ['before the commit', 'completed'],
    ['while the commit is under way', /completed|duplicate/],
    ['after the commit', 'duplicate'],
    ['before the ack', 'duplicate'],
  ])('%s: every message takes effect once', async (dieAt, outcome) => {
    const { input, output, dedupLog, groupId, brokers, worker, read, committed } = await rig();
    const victim = await live({ brokers, input, output, dedupLog, groupId, ids, dieAt });
    expect(victim.signal).toBe('SIGKILL');
    const { store, process } = worker();
    const { offset } = await store.assign({ topic: input, partition: 0 });
    // The producer has sent all of it again, and its copies are at other offsets.
    const verdicts = actions(await process(deliveries(input, [...ids.slice(Number(offset ?? 0)), ...ids], { from: Number(offset ?? 0) })));
    for (const verdict of offset === undefined ? verdicts.slice(0, 3) : []) expect(verdict).toMatch(outcome);
    expect(offset === undefined ? 'completed' : 'duplicate').toMatch(outcome);
    expect(verdicts.slice(-3)).toEqual(Array.from({ length: 3 }, () => 'ack duplicate'));
    expect(valuesOf(await read()).sort()).toEqual(ids);
    expect(await committed()).toBe('6');
  });
});
