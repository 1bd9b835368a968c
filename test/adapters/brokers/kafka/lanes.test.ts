import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { KafkaDelivery } from '../../../../adapters/brokers/kafka/delivery.ts';
import { lanes } from '../../../../adapters/brokers/kafka/lanes.ts';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';

const delivery = (offset: number, orderingKey?: string) => ({ offset, orderingKey }) as KafkaDelivery;
const offsets = (deliveries: readonly KafkaDelivery[]) => deliveries.map(({ offset }) => offset);
const every = () => true;

describe('lanes', () => {
  it('give messages in the order of their offsets, several of one key together, and none behind one that is out', () => {
    const { clock } = virtualWorld();
    const queue = lanes(clock, () => {});
    const [a0, b1, a2, a3, b4] = [delivery(0, 'a'), delivery(1, 'b'), delivery(2, 'a'), delivery(3, 'a'), delivery(4, 'b')];
    queue.add([a0, b1, a2, a3, b4]);
    expect(offsets(queue.take(3, every))).toEqual([0, 1, 2]);
    expect(offsets(queue.take(9, every))).toEqual([]);
    queue.done(b1);
    expect(offsets(queue.take(9, every))).toEqual([4]);
    queue.done(a0);
    expect(offsets(queue.take(9, every))).toEqual([]);
    queue.done(a2);
    expect(offsets(queue.take(9, every))).toEqual([3]);
  });

  it('hold a key until the time of its next try, others go on, and those without a key wait for nobody', async () => {
    const world = virtualWorld();
    let woken = 0;
    const queue = lanes(world.clock, () => woken++);
    const [a0, a1, none] = [delivery(0, 'a'), delivery(1, 'a'), delivery(2)];
    queue.add([a0, a1, none]);
    queue.take(9, every);
    queue.giveBack(a0, 1_000);
    queue.giveBack(a1, 0);
    queue.giveBack(none, 0);
    queue.add([delivery(3, 'a'), delivery(4, 'b'), delivery(5)]);
    expect(offsets(queue.take(9, every))).toEqual([2, 4, 5]);
    expect(queue.isReady()).toBe(false);
    await world.advance(999);
    expect(woken).toBe(0);
    await world.advance(1);
    expect(woken).toBe(1);
    expect(offsets(queue.take(9, every))).toEqual([0, 1, 3]);
    expect(world.timers).toBe(0);
  });

  it('lose nothing, double nothing and never let a key overtake itself, whatever fails and however often', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom('a', 'b', 'c', undefined), { minLength: 1, maxLength: 40 }),
        fc.infiniteStream(fc.record({ limit: fc.integer({ min: 1, max: 6 }), fails: fc.integer({ min: 0, max: 9 }), waitMs: fc.nat(3) })),
        async (keys, chances) => {
          const world = virtualWorld();
          const queue = lanes(world.clock, () => {});
          const done: KafkaDelivery[] = [];
          const out: KafkaDelivery[] = [];
          queue.add(keys.map((key, i) => delivery(i, key)));
          for (const { limit, fails, waitMs } of chances) {
            for (const each of queue.take(limit, every)) {
              const { offset, orderingKey } = each;
              const before = orderingKey === undefined ? [] : keys.slice(0, offset).flatMap((key, i) => (key === orderingKey ? [i] : []));
              // Of the same key: done, or going with it.
              const known = new Set([...offsets(done), ...offsets(out)]);
              expect(before.filter((earlier) => !known.has(earlier))).toEqual([]);
              out.push(each);
            }
            const first = out.shift();
            // As the receiver answers: behind the first failure of a key the rest of it comes back too.
            if (first && fails > 6) {
              queue.giveBack(first, waitMs);
              for (const behind of out.filter(({ orderingKey }) => orderingKey !== undefined && orderingKey === first.orderingKey)) {
                out.splice(out.indexOf(behind), 1);
                queue.giveBack(behind, 0);
              }
            } else if (first) {
              queue.done(first);
              done.push(first);
            } else await world.advance(1);
            if (done.length === keys.length) break;
          }
          expect(offsets(done).toSorted((a, b) => a - b)).toEqual(keys.map((_, i) => i));
          for (const key of ['a', 'b', 'c']) {
            const ofKey = offsets(done.filter(({ orderingKey }) => orderingKey === key));
            expect(ofKey).toEqual(ofKey.toSorted((a, b) => a - b));
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
