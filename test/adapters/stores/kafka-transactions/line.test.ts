import fc from 'fast-check';
import { expect, it } from 'vitest';
import { line } from '../../../../adapters/stores/kafka-transactions/line.ts';

const turnOfTheLoop = () => new Promise((resolve) => setImmediate(resolve));

it('tasks begin in order, the next when the one before lets it pass, two at most; each has its turn when those before have ended', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ passes: fc.boolean(), rejects: fc.boolean(), waits: fc.boolean() }), { minLength: 1, maxLength: 12 }),
      fc.infiniteStream(fc.nat(11)),
      async (tasks, chances) => {
        const { run, idle } = line();
        const begun: number[] = [];
        const turns: number[] = [];
        const ended = new Set<number>();
        const open = new Map<number, () => void>();
        const all = tasks.map(({ passes, rejects, waits }, i) =>
          run(async (turn, passed) => {
            expect(begun).toEqual(Array.from({ length: i }, (_, before) => before));
            begun.push(i);
            const before = i > 0 ? tasks[i - 1]! : undefined;
            expect(before === undefined || before.passes || ended.has(i - 1)).toBe(true);
            expect(begun.filter((each) => !ended.has(each)).length).toBeLessThanOrEqual(2);
            void turn.then(() => {
              turns.push(i);
              for (let each = 0; each < i; each++) expect(ended.has(each)).toBe(true);
            });
            if (waits) await turn;
            if (passes) passed();
            await new Promise<void>((resolve) => open.set(i, resolve));
            ended.add(i);
            open.delete(i);
            if (rejects) throw new Error('no');
          }),
        );
        const outcomes = Promise.allSettled(all);
        let isIdle = false;
        void idle().then(() => {
          isIdle = true;
        });
        for (const chance of chances) {
          await turnOfTheLoop();
          if (ended.size === tasks.length) break;
          const ready = [...open.values()];
          expect([ready.length > 0, isIdle]).toEqual([true, false]);
          ready[chance % ready.length]!();
        }
        expect((await outcomes).map(({ status }) => status === 'rejected')).toEqual(tasks.map(({ rejects }) => rejects));
        await turnOfTheLoop();
        expect([isIdle, turns.toSorted((a, b) => a - b)]).toEqual([true, tasks.map((_, i) => i)]);
      },
    ),
    { numRuns: 200 },
  );
});
