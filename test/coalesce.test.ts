import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { coalesce } from '../src/coalesce.ts';
import { latch, watch } from './support/stand.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A `send` whose batches wait until they are answered by hand. */
function byHand(maxBatch = 1_000, atOnce?: number) {
  const sent: { readonly batch: number[]; answer(answers?: readonly string[]): void; fail(error: unknown): void }[] = [];
  const call = coalesce(
    (batch: number[]) => {
      const { promise, open, fail } = latch<readonly string[]>();
      sent.push({ batch, answer: (answers = batch.map((n) => `answer ${n}`)) => open(answers), fail });
      return promise;
    },
    { maxBatch, atOnce },
  );
  return { call, sent, batches: () => sent.map(({ batch }) => batch) };
}

describe('an idle coalescer', () => {
  it('sends within the same turn of the event loop, without a timer', async () => {
    const { call, sent, batches } = byHand();
    const answers = call([1]);
    await null;
    await null;
    expect(batches()).toEqual([[1]]);
    sent[0]!.answer();
    expect(await answers).toEqual(['answer 1']);
  });

  it('is idle again after a batch, and sends the next call at once', async () => {
    const { call, sent, batches } = byHand();
    for (const n of [1, 2, 3]) {
      const answers = call([n]);
      await null;
      await null;
      expect(batches()).toHaveLength(n);
      sent[n - 1]!.answer();
      await answers;
      await turn();
    }
  });

  it('sends calls of the same turn together', async () => {
    const { call, sent, batches } = byHand();
    const answers = Promise.all([call([1]), call([2, 3]), call([4])]);
    await turn();
    expect(batches()).toEqual([[1, 2, 3, 4]]);
    sent[0]!.answer();
    expect(await answers).toEqual([['answer 1'], ['answer 2', 'answer 3'], ['answer 4']]);
  });

  it('answers an empty call without sending', async () => {
    const { call, sent } = byHand();
    expect(await call([])).toEqual([]);
    await turn();
    expect(sent).toEqual([]);
  });
});

describe('a coalescer under load', () => {
  it('has one batch under way, and gathers what arrives meanwhile into the next', async () => {
    const { call, sent, batches } = byHand();
    const first = call([1]);
    await turn();
    const later = [call([2]), call([3])];
    await turn();
    const latest = call([4, 5]);
    await turn();
    expect(batches()).toEqual([[1]]);
    sent[0]!.answer();
    await first;
    await turn();
    expect(batches()).toEqual([[1], [2, 3, 4, 5]]);
    sent[1]!.answer();
    expect(await Promise.all([...later, latest])).toEqual([['answer 2'], ['answer 3'], ['answer 4', 'answer 5']]);
  });

  it('never sends more than maxBatch together, never splits a call, and keeps the order of calls', async () => {
    const { call, sent, batches } = byHand(4);
    const calls = [call([1, 2]), call([3, 4, 5]), call([6]), call([7])];
    for (let i = 0; i < 3; i++) {
      await turn();
      sent[i]!.answer();
    }
    expect(await Promise.all(calls)).toEqual([['answer 1', 'answer 2'], ['answer 3', 'answer 4', 'answer 5'], ['answer 6'], ['answer 7']]);
    expect(batches()).toEqual([[1, 2], [3, 4, 5, 6], [7]]);
  });

  it('sends a call that is larger than maxBatch alone, in one piece', async () => {
    const { call, sent, batches } = byHand(2);
    const calls = [call([1]), call([2, 3, 4]), call([5])];
    for (let i = 0; i < 3; i++) {
      await turn();
      sent[i]!.answer();
    }
    await Promise.all(calls);
    expect(batches()).toEqual([[1], [2, 3, 4], [5]]);
  });

  it('gives every call its own answers, whatever the sizes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(5), { maxLength: 30 }), fc.integer({ min: 1, max: 8 }), async (sizes, maxBatch) => {
        let under = 0;
        const call = coalesce(
          async (batch: number[]) => {
            expect(++under).toBe(1);
            await null;
            under--;
            return batch.map((n) => n * 2);
          },
          { maxBatch },
        );
        let n = 0;
        const asked = sizes.map((size) => Array.from({ length: size }, () => n++));
        const answers = await Promise.all(asked.map((items) => call(items)));
        expect(answers).toEqual(asked.map((items) => items.map((item) => item * 2)));
      }),
    );
  });
});

describe('a batch that fails', () => {
  it('rejects each of its calls with the same error, and no other', async () => {
    const { call, sent } = byHand();
    const [a, b] = [watch(call([1])), watch(call([2]))];
    await turn();
    const c = watch(call([3]));
    const error = new Error('down');
    sent[0]!.fail(error);
    await turn();
    expect([a.error, b.error]).toEqual([error, error]);
    expect(c.done).toBe(false);
    sent[1]!.answer();
    await turn();
    expect(c.value).toEqual(['answer 3']);
  });

  it('does not wedge the coalescer if `send` throws before it returns a promise', async () => {
    let broken = true;
    const call = coalesce(
      (batch: number[]) => {
        if (broken) throw new Error('at once');
        return Promise.resolve(batch);
      },
      { maxBatch: 10 },
    );
    await expect(call([1])).rejects.toThrow('at once');
    broken = false;
    expect(await call([2])).toEqual([2]);
  });

  it.each([
    ['too few', ['a'], 'Expected 2 answers, got 1'],
    ['too many', ['a', 'b', 'c'], 'Expected 2 answers, got 3'],
  ])('rejects all its calls if its answers are %s, rather than giving one the answer of another', async (_, answers, text) => {
    const { call, sent } = byHand();
    const calls = [watch(call([1])), watch(call([2]))];
    await turn();
    sent[0]!.answer(answers);
    await turn();
    for (const { error } of calls) expect(error).toMatchObject({ code: 'store', message: text });
  });

  it('rejects all its calls if its answer is nonsense', async () => {
    const call = coalesce(async (_: number[]) => undefined as unknown as number[], { maxBatch: 10 });
    const calls = [watch(call([1])), watch(call([2]))];
    await turn();
    for (const { error } of calls) expect(error).toBeInstanceOf(TypeError);
  });
});

describe('a coalescer with several batches at once', () => {
  it('sends up to that many, then gathers what comes until one returns', async () => {
    const { call, sent, batches } = byHand(1_000, 2);
    const calls = [];
    for (const n of [1, 2, 3, 4]) {
      calls.push(call([n]));
      await turn();
    }
    expect(batches()).toEqual([[1], [2]]);
    sent[1]!.answer();
    await turn();
    expect(batches()).toEqual([[1], [2], [3, 4]]);
    sent[0]!.answer();
    sent[2]!.answer();
    expect((await Promise.all(calls)).flat()).toEqual(['answer 1', 'answer 2', 'answer 3', 'answer 4']);
    void call([5]);
    await turn();
    expect(batches()).toHaveLength(4);
  });
});
