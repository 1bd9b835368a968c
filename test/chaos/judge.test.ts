import { describe, expect, it } from 'vitest';
import type { Mode } from './cell.ts';
import { type Evidence, judge } from './judge.ts';
import type { Entry } from './ledger.ts';

// The chaos runs are judged by this, so the judge is tried here on evidence made by hand. The runs themselves are steps of .ci/run and lab.yml.

const [a, b] = [101, 102];
const entry = (id: string, worker: number, at: number, fence?: number): Entry => ({
  id,
  key: 'k',
  n: Number(id.slice(1)),
  worker,
  at,
  fence,
});

function verdictOn(mode: Mode, entries: readonly Entry[], more: Partial<Evidence> = {}) {
  const sent = new Map([1, 2].map((n) => [`m${n}`, { order: { id: `m${n}`, key: 'k', n }, times: 1 }]));
  return judge({ mode, isOrdered: true, leaseMs: 600, sent, entries, events: new Map(), blows: new Map(), outages: [], ...more });
}

const fine = [entry('m1', a, 1_000), entry('m2', a, 1_010)];
const again = [...fine, entry('m2', b, 1_700)];
const kill = (at: number) => ({ kind: 'kill' as const, at, until: Number.POSITIVE_INFINITY });
const stop = (at: number, until: number) => ({ kind: 'stop' as const, at, until });

describe('the judge', () => {
  it('finds nothing wrong with every effect once and in order', () => {
    for (const mode of ['transactional', 'leased', 'fenced', 'naive'] as const)
      expect(verdictOn(mode, fine)).toEqual({ lost: [], doubled: [], explained: {}, wrong: [], disordered: [] });
  });

  it('tells what is lost, what nobody sent, and what is out of its key’s order', () => {
    expect(verdictOn('transactional', [fine[1]!]).lost).toEqual([expect.stringMatching(/^m1/)]);
    expect(verdictOn('transactional', [...fine, entry('m9', a, 1)]).wrong).toEqual(['m9 was never sent']);
    expect(verdictOn('transactional', fine.toReversed()).disordered).toHaveLength(1);
    expect(verdictOn('transactional', fine.toReversed(), { isOrdered: false }).disordered).toEqual([]);
    // A late repetition is a double, and not a matter of order.
    expect(verdictOn('leased', [...fine, entry('m1', b, 2_000)]).disordered).toEqual([]);
  });

  it('takes no reason for a double in a transaction', () => {
    const blows = new Map([[a, [kill(1_012)]]]);
    expect(verdictOn('transactional', again, { blows })).toMatchObject({ doubled: ['m2'], wrong: ['m2 2 times'] });
  });

  describe('takes for the reason of a double, where leases are all there is,', () => {
    it.each([
      ['a kill', { blows: new Map([[a, [kill(1_012)]]]) }, 'killed'],
      ['a stop', { blows: new Map([[a, [stop(1_012, 2_000)]]]) }, 'stopped'],
      ['a store that was out', { outages: [{ of: 'store' as const, at: 1_100, until: 1_400 }] }, 'store out'],
    ])('%s between effect and record', (_, more, why) => {
      expect(verdictOn('leased', again, more)).toMatchObject({ doubled: ['m2'], explained: { [why]: 1 }, wrong: [] });
    });

    it('a worker that stood still before its effect for longer than its lease was left, and no shorter', () => {
      const events = new Map([['m2', [{ is: 'claimed' as const, worker: a, at: 400 }]]]);
      const fences = [entry('m1', a, 1_000, 1), entry('m2', a, 1_010, 1), entry('m2', b, 1_700, 2)];
      const fenced = (until: number) => verdictOn('fenced', fences, { events, blows: new Map([[a, [stop(410, until)]]]) });
      expect(fenced(410 + 400)).toMatchObject({ explained: { stopped: 1 }, wrong: [] });
      expect(fenced(410 + 399).wrong).toHaveLength(1);
      // A worker that claimed it after it had stood still has no excuse.
      const late = new Map([['m2', [{ is: 'claimed' as const, worker: a, at: 900 }]]]);
      expect(verdictOn('leased', again, { events: late, blows: new Map([[a, [stop(410, 850)]]]) }).wrong).toHaveLength(1);
    });

    it('a worker that stood still before its effect, until another had recorded it', () => {
      const events = new Map([
        [
          'm2',
          [
            { is: 'claimed' as const, worker: b, at: 1_000 },
            { is: 'recorded' as const, worker: a, at: 1_020 },
          ],
        ],
      ]);
      const blows = new Map([[b, [stop(1_001, 1_690)]]]);
      expect(verdictOn('leased', again, { events, blows }).explained).toEqual({ 'woken late': 1 });
      const unrecorded = new Map([['m2', [{ is: 'claimed' as const, worker: b, at: 1_000 }]]]);
      expect(verdictOn('leased', again, { events: unrecorded, blows }).explained).toEqual({ 'woken late': 1 });
      const later = new Map([['m2', [{ is: 'claimed' as const, worker: b, at: 1_015 }]]]);
      expect(verdictOn('leased', again, { events: later, blows: new Map([[b, [stop(1_016, 1_690)]]]) }).wrong).toHaveLength(1);
    });
  });

  it.each<[string, Partial<Evidence>]>([
    ['nothing', {}],
    ['a kill of somebody else', { blows: new Map([[b, [kill(1_012)]]]) }],
    ['a stop long before', { blows: new Map([[a, [stop(700, 800)]]]) }],
    ['a kill long after', { blows: new Map([[a, [kill(1_010 + 600 + 101)]]]) }],
    [
      'a kill after the record',
      { blows: new Map([[a, [kill(1_030)]]]), events: new Map([['m2', [{ is: 'recorded', worker: a, at: 1_020 }]]]) },
    ],
    ['a broker that was out', { outages: [{ of: 'broker', at: 1_000, until: 2_000 }] }],
  ])('takes %s for no reason', (_, more) => {
    expect(verdictOn('leased', again, more).wrong).toEqual([expect.stringMatching(/^m2 again, for no reason/)]);
  });

  it('wants a greater fence for each repetition', () => {
    const blows = new Map([[a, [kill(1_012)]]]);
    const fenced = (first: number, second: number) => [
      entry('m1', a, 1_000, 1),
      entry('m2', a, 1_010, first),
      entry('m2', b, 1_700, second),
    ];
    expect(verdictOn('fenced', fenced(1, 2), { blows })).toMatchObject({ explained: { killed: 1 }, wrong: [] });
    expect(verdictOn('fenced', fenced(2, 2), { blows }).wrong).toEqual(['m2 again with the fence 2']);
  });

  it('does not blame a naive consumer for what was sent twice, but for all else', () => {
    const sent = new Map([1, 2].map((n) => [`m${n}`, { order: { id: `m${n}`, key: 'k', n }, times: n }]));
    expect(verdictOn('naive', again, { sent }).doubled).toEqual([]);
    expect(verdictOn('naive', [...again, entry('m1', b, 1_800)], { sent }).doubled).toEqual(['m1']);
  });
});
