import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OffsetTracker, type Range, rangesOf, rangesText } from '../../../../adapters/brokers/kafka/offsets.ts';

/** The same, slowly: every offset by itself. */
function slow(from: number) {
  const open = new Set<number>();
  let position = from;
  return {
    take(offset: number) {
      if (offset < position) return;
      position = offset + 1;
      open.add(offset);
    },
    finish: (offset: number) => void open.delete(offset),
    mark(also: ReadonlySet<number>) {
      const isDone = (offset: number) => !open.has(offset) || also.has(offset);
      let next = from;
      while (next < position && isDone(next)) next++;
      const done: number[] = [];
      for (let offset = next; offset < position; offset++) if (isDone(offset)) done.push(offset);
      return { next, done };
    },
  };
}

const all = (ranges: readonly Range[]) => ranges.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i));

describe('the offset tracker', () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('take' as const), gap: fc.integer({ min: 0, max: 3 }) }),
    fc.record({ do: fc.constant('finish' as const), which: fc.nat(50) }),
    fc.record({ do: fc.constant('ask' as const), also: fc.array(fc.nat(50), { maxLength: 5 }) }),
  );

  it('moves only over a prefix without a gap, whatever order messages end in, and over offsets that do not exist', () => {
    fc.assert(
      fc.property(fc.nat(10), fc.array(step, { maxLength: 60 }), (from, steps) => {
        const tracker = new OffsetTracker({ next: from, done: [] });
        const model = slow(from);
        const taken: number[] = [];
        let at = from;
        for (const each of steps) {
          if (each.do === 'take') {
            at += each.gap;
            expect(tracker.take(at)).toBe(true);
            model.take(at);
            taken.push(at++);
          } else if (each.do === 'finish' && taken.length > 0) {
            const offset = taken[each.which % taken.length]!;
            tracker.finish(offset);
            model.finish(offset);
          } else if (each.do === 'ask') {
            const also = new Set(taken.length === 0 ? [] : each.also.map((which) => taken[which % taken.length]!));
            const { next, done } = tracker.markWith(also);
            expect({ next, done: all(done) }).toEqual(model.mark(also));
            expect(tracker.nextWith(also)).toBe(next);
          }
        }
        expect(tracker.next).toBe(model.mark(new Set()).next);
        expect(tracker.span).toBe(at - tracker.next);
      }),
      { numRuns: 2_000 },
    );
  });

  it('goes on from a mark as if it had never stopped: what was done is not taken again, what was not is', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.array(fc.nat(39)), fc.array(fc.nat(39)), (count, before, after) => {
        const first = new OffsetTracker({ next: 0, done: [] });
        for (let offset = 0; offset < count; offset++) first.take(offset);
        for (const offset of before) first.finish(offset);
        const mark = first.markWith(new Set());
        const text = rangesText(mark.done);
        const second = new OffsetTracker({ next: mark.next, done: rangesOf(text) });
        const wanted = new Set(before.filter((offset) => offset < count));
        for (let offset = 0; offset < count; offset++) expect(second.take(offset)).toBe(!wanted.has(offset) && offset >= mark.next);
        for (const offset of after) {
          first.finish(offset);
          second.finish(offset);
        }
        expect(second.markWith(new Set())).toEqual(first.markWith(new Set()));
      }),
      { numRuns: 2_000 },
    );
  });

  it('keeps what is done and has not been met yet, until it is met', () => {
    const tracker = new OffsetTracker({
      next: 5,
      done: [
        [7, 9],
        [20, 21],
      ],
    });
    expect(tracker.markWith(new Set())).toEqual({
      next: 5,
      done: [
        [7, 9],
        [20, 21],
      ],
    });
    for (const offset of [5, 6, 7, 8]) tracker.take(offset);
    tracker.finish(6);
    expect(tracker.markWith(new Set([5]))).toEqual({
      next: 9,
      done: [
        [9, 9],
        [20, 21],
      ],
    });
  });

  it('takes over what another account says is done, and gives those messages up', () => {
    const tracker = new OffsetTracker({ next: 0, done: [] });
    for (let offset = 0; offset < 6; offset++) tracker.take(offset);
    tracker.learn({ next: 2, done: [[4, 4]] });
    expect([0, 1, 2, 3, 4, 5].filter((offset) => tracker.isOpen(offset))).toEqual([2, 3, 5]);
    expect(tracker.next).toBe(2);
  });
});
