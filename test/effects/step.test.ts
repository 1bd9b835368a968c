import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { memoryStore } from '../../adapters/stores/memory.ts';
import { randomOf, uuidOf } from '../../src/effects/deterministic.ts';
import { RetryAfter, type StepCall, TerminalError } from '../../src/index.ts';
import { virtualWorld } from '../../src/testing/virtual-world.ts';
import { delivery, latch } from '../support/stand.ts';
import { effects, failing, type StepsContext, worker } from './stand.ts';

const code = (expected: string, message = '') =>
  expect.objectContaining({ name: 'ReceiverError', code: expected, message: expect.stringContaining(message) });

describe('a step', () => {
  it('is done once, and later attempts are given its result', async () => {
    const { done, now } = effects();
    const fail = failing(3);
    const results: string[] = [];
    const { finish } = worker(async (ctx) => {
      results.push(await ctx.step('charge', () => now('charge')));
      fail();
      return ctx.step('mail', () => now('mail'));
    });
    expect(await finish()).toMatchObject({ action: 'ack', outcome: 'completed', result: 'receipt 2 for mail' });
    expect(done).toEqual(['charge', 'mail']);
    expect(results).toEqual(Array(4).fill('receipt 1 for charge'));
  });

  it.each([[undefined], [null], [''], [0], [false], [{ a: [1, { b: null }] }]])('gives %j back as it is', async (value) => {
    const seen: unknown[] = [];
    const fail = failing(1);
    const { finish } = worker(async (ctx) => {
      seen.push(await ctx.step('value', () => value));
      fail();
    });
    await finish();
    expect(seen).toEqual([value, value]);
  });

  it('gives what the journal can hold, also on the first attempt', async () => {
    const seen: unknown[] = [];
    const fail = failing(1);
    const { finish } = worker(async (ctx) => {
      seen.push(await ctx.step('when', () => new Date(0)));
      fail();
    });
    await finish();
    expect(seen).toEqual(['1970-01-01T00:00:00.000Z', '1970-01-01T00:00:00.000Z']);
  });

  it('gets a key that is that of `ctx.key`, the same on every attempt and another for every step and message', async () => {
    const keys: string[] = [];
    const { finish } = worker((ctx) =>
      Promise.all(
        ['a', 'b'].map((name) =>
          ctx.step(name, ({ key }) => {
            expect(key).toBe(ctx.key(name));
            keys.push(key);
            if (ctx.attempt < 3) throw new Error('again');
          }),
        ),
      ),
    );
    await finish('a');
    expect(keys).toHaveLength(6);
    expect(new Set(keys).size).toBe(2);
    await finish('b');
    expect(new Set(keys).size).toBe(4);
    expect(keys.every((key) => /^[\w-]{32}$/.test(key))).toBe(true);
  });

  it('gets the fence of the claim and the signal of the handler', async () => {
    const calls: StepCall[] = [];
    const { finish } = worker(async (ctx) => {
      await ctx.step('charge', (call) => {
        calls.push(call);
        expect(call.fence).toBe(ctx.fence);
        expect(call.signal).toBe(ctx.signal);
        if (ctx.attempt < 3) throw new Error('again');
      });
    });
    await finish();
    const fences = calls.map(({ fence }) => fence);
    expect(fences).toEqual([...new Set(fences)].sort((a, b) => a - b));
    expect(fences).toHaveLength(3);
  });

  it('can be taken out of the context', async () => {
    const { finish } = worker(({ step, now, uuid }) => step('a', async () => [typeof (await Promise.resolve(uuid('x'))), typeof now]));
    expect(await finish()).toMatchObject({ result: ['string', 'function'] });
  });
});

describe('an error', () => {
  it('that may pass is not recorded: the step is done again', async () => {
    const { count, now } = effects();
    const fail = failing(2, () => new RetryAfter(5));
    const { finish } = worker((ctx) =>
      ctx.step('charge', async () => {
        await now('charge');
        fail();
      }),
    );
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(count('charge')).toBe(3);
  });

  it('that is final is recorded and thrown again, in the same form, by every later attempt', async () => {
    const { count, now } = effects();
    const fail = failing(2);
    const seen: unknown[] = [];
    const { finish } = worker(async (ctx) => {
      class Declined extends TerminalError {
        readonly limit = 5;
      }
      await ctx
        .step('charge', async () => {
          await now('charge');
          throw new Declined('the card was declined');
        })
        .catch((error) => seen.push(error));
      fail();
    });
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(count('charge')).toBe(1);
    expect(seen).toHaveLength(3);
    for (const error of seen) expect(error).toMatchObject({ constructor: TerminalError, message: 'the card was declined' });
    // What was thrown is there for the log of the attempt that it was thrown in.
    expect((seen[0] as Error).cause).toMatchObject({ limit: 5 });
  });

  it('that is final parks the message if the handler lets it out', async () => {
    const { finish } = worker((ctx) => ctx.step('charge', () => Promise.reject(new TerminalError('declined'))));
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'terminal', detail: 'TerminalError: declined', attempts: 1 });
  });
});

describe('a result', () => {
  it.each([
    ['can’t be encoded', () => 10n, "Expected it to be encodable: TypeError: JSON can't hold a bigint"],
    ['is too long', () => 'x'.repeat(99), 'Expected it to be at most 100 bytes, got 101'],
  ])('that %s parks the message, and the effect is not asked for again', async (_, result, message) => {
    const { count, now } = effects();
    const { finish, store, key } = worker(
      (ctx) => ctx.step('charge', () => now('charge').then(result as () => unknown)),
      {},
      { maxResultBytes: 100, codec: undefined },
    );
    for (let i = 0; i < 3; i++) {
      expect(await finish()).toMatchObject({
        action: 'dead-letter',
        reason: 'terminal',
        detail: `TerminalError: Step "charge" has been done, but its result can't be kept: ${message}`,
      });
      await store.replay(key);
    }
    expect(count('charge')).toBe(1);
  });

  it('goes through the schema, on the first attempt and when it comes from the journal', async () => {
    const fail = failing(1);
    const seen: Date[] = [];
    const Receipt = z.object({ at: z.coerce.date() });
    const { finish } = worker(async (ctx) => {
      const { at } = await ctx.step('charge', () => ({ at: new Date(7) }), { schema: Receipt });
      seen.push(at);
      fail();
    });
    await finish();
    expect(seen).toEqual([new Date(7), new Date(7)]);
  });

  it('that does not fit its schema was recorded: a better schema finds it', async () => {
    const { count, now } = effects();
    let schema: z.ZodType = z.number();
    const { finish, store, key } = worker((ctx) => ctx.step('charge', () => now('charge'), { schema }), {}, { maxAttempts: 2 });
    expect(await finish()).toMatchObject({
      action: 'dead-letter',
      detail: expect.stringContaining('Expected the result of step "charge" to fit its schema'),
    });
    schema = z.string();
    await store.replay(key);
    expect(await finish()).toMatchObject({ action: 'ack', result: 'receipt 1 for charge' });
    expect(count('charge')).toBe(1);
  });

  it('that can’t be kept fails the step for good, by the error of the codec', async () => {
    const errors: Error[] = [];
    const cause = new Error('no such type');
    const codec = {
      encode: () => {
        throw cause;
      },
      decode: JSON.parse,
    };
    const { deliver } = worker(
      (ctx) => ctx.step('charge', () => 1).catch((error) => void errors.push(error)),
      {},
      { codec, results: false },
    );
    await deliver();
    expect(errors).toEqual([
      expect.objectContaining({
        name: 'TerminalError',
        message: expect.stringContaining('Step "charge" has been done, but its result can\'t be kept: '),
      }),
    ]);
    let deepest: unknown = errors[0];
    while (deepest instanceof Error && deepest.cause) deepest = deepest.cause;
    expect(deepest).toBe(cause);
  });

  it('that can’t be decoded any more is not taken for absent', async () => {
    const { count, now } = effects();
    const fail = failing(1);
    let broken = false;
    const codec = { encode: JSON.stringify, decode: (text: string) => (broken ? JSON.parse('{') : JSON.parse(text)) };
    const { deliver } = worker(
      async (ctx) => {
        const receipt = await ctx.step('charge', () => now('charge'));
        fail();
        return receipt;
      },
      {},
      { codec },
    );
    await deliver();
    broken = true;
    const verdict = await deliver();
    expect(verdict).toMatchObject({
      action: 'retry',
      error: code('codec', 'The stored result of step "charge" can\'t be decoded: SyntaxError: '),
    });
    expect((verdict as { error: Error }).error.cause).toBeInstanceOf(SyntaxError);
    broken = false;
    expect(await deliver()).toMatchObject({ action: 'ack' });
    expect(count('charge')).toBe(1);
  });
});

describe('what steps cost', () => {
  it('one round trip each, and one to read the journal', async () => {
    const { finish, faults } = worker(async (ctx) => {
      await ctx.step('a', () => 1);
      await ctx.step('b', () => 2);
      await ctx.step('c', () => 3);
    });
    await finish();
    expect(faults.calls.map(({ verb }) => verb)).toEqual([
      'claim',
      'readEntries',
      'writeEntries',
      'writeEntries',
      'writeEntries',
      'settle',
    ]);
  });

  it('nothing to handlers that have none', async () => {
    const { finish, faults } = worker(() => 1);
    await finish();
    expect(faults.calls.map(({ verb }) => verb)).toEqual(['claim', 'settle']);
  });

  it('of messages that are handled at once, together', async () => {
    const { receiver, faults } = worker((ctx) => Promise.all([ctx.step('a', () => 1), ctx.step('b', () => 2)]), {}, { concurrency: 1_000 });
    const deliveries = Array.from({ length: 200 }, (_, i) => ({ message: { id: `${i}`, body: '{}', headers: { id: `${i}` } } }));
    const verdicts = await receiver.process(deliveries);
    expect(verdicts.every(({ action }) => action === 'ack')).toBe(true);
    const writes = faults.calls.filter(({ verb }) => verb === 'writeEntries');
    expect(writes.reduce((sum, { items }) => sum + items, 0)).toBe(400);
    expect(writes.length).toBeLessThan(10);
    expect(faults.calls.filter(({ verb }) => verb === 'readEntries').length).toBeLessThan(10);
  });
});

describe('the journal', () => {
  it.each(['before', 'after'] as const)('is written again when the %s half of the call is lost', async (lost) => {
    const { count, now } = effects();
    const fail = failing(1);
    const { finish, faults } = worker(async (ctx) => {
      await ctx.step('charge', () => now('charge'));
      fail();
    });
    faults.next.writeEntries = [lost, lost, lost];
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(count('charge')).toBe(1);
  });

  it('that can’t be written as long as the claim holds makes the step fail, and the effect is asked for again with the same key', async () => {
    const keys: string[] = [];
    const { world, deliver, faults } = worker((ctx) => ctx.step('charge', ({ key }) => void keys.push(key)));
    faults.broken.writeEntries = 'before';
    faults.broken.extend = 'before';
    const verdict = await deliver();
    expect(verdict).toMatchObject({ action: 'retry', error: expect.objectContaining({ message: 'writeEntries: request lost' }) });
    expect(world.clock.now()).toBeGreaterThanOrEqual(30_000);
    faults.broken.writeEntries = faults.broken.extend = undefined as never;
    await world.advance(60_000);
    expect(await deliver()).toMatchObject({ action: 'ack' });
    expect(keys).toHaveLength(2);
    expect(new Set(keys).size).toBe(1);
  });

  it('is written again after pauses that grow from 50 ms to 2 seconds', async () => {
    const world = virtualWorld();
    const store = memoryStore({ now: world.clock.now });
    const at: number[] = [];
    const writeEntries: typeof store.writeEntries = (writes) =>
      at.push(world.clock.now()) < 9 ? Promise.reject(new Error('request lost')) : store.writeEntries(writes);
    const { deliver } = worker((ctx) => ctx.step('charge', () => 'done'), { world, store: { ...store, writeEntries } });
    expect(await deliver()).toMatchObject({ action: 'ack', result: 'done' });
    expect(at.slice(1).map((each, i) => each - at[i]!)).toEqual([50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
  });

  it('that can’t be read is no business of a handler that can do without the step', async () => {
    const { deliver, faults } = worker((ctx) => ctx.step('charge', () => 'done').catch(() => 'went on'));
    faults.next.readEntries = ['before'];
    expect(await deliver()).toMatchObject({ action: 'ack', result: 'went on' });
  });

  it('that can’t be read keeps every step from being done', async () => {
    const { done, now } = effects();
    const { deliver, faults } = worker((ctx) => ctx.step('charge', () => now('charge')));
    faults.next.readEntries = ['before'];
    expect(await deliver()).toMatchObject({ action: 'retry' });
    expect(done).toEqual([]);
  });

  it('outlives parking and replay, although attempts begin at 1 again', async () => {
    const { count, now } = effects();
    const fail = failing(2);
    const attempts: number[] = [];
    const { finish, store, key } = worker(
      async (ctx) => {
        attempts.push(ctx.attempt);
        await ctx.step('charge', () => now('charge'));
        fail();
      },
      {},
      { maxAttempts: 2 },
    );
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'max-attempts' });
    expect(await store.replay(key)).toBe(true);
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(attempts).toEqual([1, 2, 1]);
    expect(count('charge')).toBe(1);
  });

  it('outlives a receiver that is stopped in the middle, although the attempt does not count', async () => {
    const { count, now } = effects();
    const hanging = latch();
    const handle = (wait: Promise<unknown>) => async (ctx: StepsContext) => {
      await ctx.step('charge', () => now('charge'));
      const aborted = new Promise((_, reject) => ctx.signal.addEventListener('abort', () => reject(ctx.signal.reason)));
      await Promise.race([wait, aborted]);
      return ctx.attempt;
    };
    const first = worker(handle(hanging.promise));
    const { world, store } = first;
    const verdict = first.deliver();
    await world.settle();
    const stopping = first.receiver.stop({ graceMs: 1_000 });
    await world.advance(1_000);
    expect(await verdict).toMatchObject({ action: 'retry', reason: 'stopped' });
    await world.advance(10_000);
    await stopping;
    const second = worker(handle(Promise.resolve()), { world, store });
    expect(await second.finish()).toMatchObject({ action: 'ack', result: 1 });
    expect(count('charge')).toBe(1);
    expect(world.timers).toBe(0);
  });

  it('goes with the record: after its retention a message is new', async () => {
    const { count, now } = effects();
    const { world, finish } = worker((ctx) => ctx.step('charge', () => now('charge')), {}, { retentionMs: 60_000, cacheSize: 0 });
    expect(await finish()).toMatchObject({ outcome: 'completed' });
    await world.advance(60_001);
    expect(await finish()).toMatchObject({ outcome: 'completed' });
    expect(count('charge')).toBe(2);
  });
});

describe('a worker that has lost its claim', () => {
  /** A zombie that hangs in the effect of its first step, while another worker takes over and finishes. */
  async function zombie(where: 'before the effect' | 'after the effect') {
    const { count, now } = effects();
    const hanging = latch();
    const seen: unknown[] = [];
    const first = worker(
      async (ctx) => {
        try {
          await ctx.step('charge', async () => {
            if (where === 'after the effect') await now('charge');
            await hanging.promise;
            if (where === 'before the effect' && !ctx.signal.aborted) await now('charge');
          });
          seen.push('went on');
        } catch (error) {
          seen.push(error);
        }
        await ctx.step('mail', () => now('mail')).catch((error) => seen.push(error));
      },
      {},
      { leaseMs: 10_000 },
    );
    const { world, store } = first;
    const verdict = first.receiver.process([delivery('a')]);
    await world.settle();
    // It can't extend its claim, and is stopped for so long that its lease ends.
    first.faults.broken.extend = 'before';
    await world.advance(10_001);
    const second = worker(
      async (ctx) => {
        await ctx.step('charge', () => now('charge by the new owner'));
        await ctx.step('mail', () => now('mail'));
      },
      { world, store },
    );
    expect(await second.finish()).toMatchObject({ action: 'ack' });
    hanging.open();
    await world.advance(2_000);
    return { count, seen, verdict: (await verdict)[0]!, world };
  }

  it.each(['before the effect', 'after the effect'] as const)('records nothing and goes no further: it hung %s', async (where) => {
    const { seen, verdict, count } = await zombie(where);
    expect(seen).toEqual([code('claim-lost'), code('claim-lost')]);
    expect(verdict).toMatchObject({ action: 'retry', reason: 'fenced' });
    expect(count('mail')).toBe(1);
  });

  it('is told by the store, if nothing else has told it', async () => {
    const { done, now } = effects();
    const world = virtualWorld();
    let ahead = 0;
    const store = memoryStore({ now: () => world.clock.now() + ahead });
    let rejected: unknown;
    const { deliver, key } = worker(
      async (ctx) => {
        await ctx
          .step('charge', async () => {
            await now('charge');
            // The store's clock jumps, and somebody else has the message before this worker's next heartbeat.
            ahead = 60_000;
            await store.claim([{ key, fingerprint: '', token: 'of another', leaseMs: 30_000, retainMs: 30_000 }]);
          })
          .catch((error) => (rejected = error));
        expect(ctx.signal.reason).toBe(rejected);
        await ctx.step('mail', () => now('mail'));
      },
      { world, store },
    );
    expect(await deliver()).toMatchObject({ action: 'retry', reason: 'fenced' });
    expect(rejected).toEqual(code('claim-lost'));
    expect(done).toEqual(['charge']);
  });

  it('does not begin its first step either, if the store knows better', async () => {
    const { done, now } = effects();
    const world = virtualWorld();
    let ahead = 0;
    let rejected: unknown;
    const store = memoryStore({ now: () => world.clock.now() + ahead });
    const { deliver, key } = worker(
      async (ctx) => {
        ahead = 60_000;
        await store.claim([{ key, fingerprint: '', token: 'of another', leaseMs: 30_000, retainMs: 30_000 }]);
        await ctx.step('charge', () => now('charge')).catch((error) => (rejected = error));
      },
      { world, store },
    );
    expect(await deliver()).toMatchObject({ action: 'retry', reason: 'fenced' });
    expect(rejected).toEqual(code('claim-lost', 'The claim was lost while its steps were running'));
    expect(done).toEqual([]);
  });

  it('begins no step when its lease may have ended, before anybody has told it', async () => {
    const { done, now } = effects();
    const world = virtualWorld();
    let jumped = 0;
    const jumping = { ...world, clock: { ...world.clock, now: () => world.clock.now() + jumped } };
    const { deliver } = worker(
      async (ctx) => {
        await ctx.step('a', () => now('a'));
        // The process was stopped, and goes on before any timer has run.
        jumped = 30_000;
        await ctx.step('b', () => now('b'));
      },
      { world, store: memoryStore({ now: jumping.clock.now }) },
      { world: jumping },
    );
    expect(await deliver()).toMatchObject({ action: 'retry', reason: 'fenced', error: code('claim-lost') });
    expect(done).toEqual(['a']);
  });
});

describe('the name of a step', () => {
  it.each([[''], [' '], ['a\nb'], ['$a'], ['x'.repeat(201)], ['\ud800'], [7], [undefined]])('can’t be %j', async (name) => {
    const { deliver } = worker((ctx) => ctx.step(name as string, () => 1));
    expect(await deliver()).toMatchObject({
      action: 'retry',
      error: code('invalid-step', 'Expected the name of a step to be text of 1 to 200 characters, on one line, not beginning with $, got '),
    });
  });

  it('may have a / in it', async () => {
    const { deliver } = worker((ctx) => ctx.step('mail/first', () => 'sent'));
    expect(await deliver()).toMatchObject({ action: 'ack', result: 'sent' });
  });

  it('that is none fails the step alone, if the handler does not mind', async () => {
    const { deliver } = worker((ctx) => ctx.step('', () => 1).catch(() => 'went on'));
    expect(await deliver()).toMatchObject({ action: 'ack', result: 'went on' });
  });

  it('is used once in a message: results can’t be mixed up when steps run in another order', async () => {
    const { done, now } = effects();
    const { deliver } = worker((ctx) => Promise.all(['x', 'y'].map((item) => ctx.step('charge', () => now(item)))));
    expect(await deliver()).toMatchObject({
      action: 'retry',
      error: expect.objectContaining({
        code: 'invalid-step',
        message:
          'Expected each step of a message to have a name of its own, got "charge" twice: add what tells them apart, such as "charge 7"',
      }),
    });
    expect(done).toEqual(['x']);
  });
});

describe('a final error', () => {
  it('is kept up to 2,000 characters', async () => {
    const errors: Error[] = [];
    const { finish } = worker(async (ctx) => {
      await ctx.step('a', () => Promise.reject(new TerminalError('x'.repeat(5_000)))).catch((error: Error) => errors.push(error));
      if (ctx.attempt === 1) throw new Error('try again');
    });
    await finish();
    expect(errors.map(({ message }) => message)).toEqual(['x'.repeat(2_000), 'x'.repeat(2_000)]);
  });
});

describe('what can’t be a step', () => {
  it.each([
    ['something else than a function', (ctx: StepsContext) => ctx.step('a', 7 as never), 'step "a" to be a function, got 7'],
    [
      'something with a `confirm` that is no function',
      (ctx: StepsContext) => ctx.step('a', () => 1, { confirm: 'unknown' as never }),
      'step "a: `confirm`" to be a function, got "unknown"',
    ],
  ])('is %s', async (_, handle, message) => {
    expect(await worker(handle).deliver()).toMatchObject({ action: 'retry', error: code('invalid-step', message) });
  });

  it.each([
    ['a step', (ctx: StepsContext) => ctx.step('b', () => 1), 'The step "b"'],
    ['a saga', (ctx: StepsContext) => ctx.saga('b', () => 1), 'The saga "b"'],
    ['the time', (ctx: StepsContext) => ctx.now(), 'The step "/now"'],
  ])('is %s inside a step', async (_, inner, who) => {
    const { deliver } = worker((ctx) => ctx.step('a', () => inner(ctx)));
    expect(await deliver()).toMatchObject({
      action: 'retry',
      error: code('nested', `${who} was begun inside a step of the same message`),
    });
  });

  it('is what comes after the handler has ended', async () => {
    const { done, now } = effects();
    const later = latch();
    let late: Promise<unknown> | undefined;
    const { deliver } = worker((ctx) => {
      late = later.promise.then(() => ctx.step('late', () => now('late')));
      return ctx.step('a', () => now('a'));
    });
    expect(await deliver()).toMatchObject({ action: 'ack' });
    later.open();
    await expect(late).rejects.toEqual(code('invalid-step', 'The step "late" was begun after its handler had ended: wait for it'));
    expect(done).toEqual(['a']);
  });

  it('is the one after 1,000 of them, over all attempts', async () => {
    const { done, now } = effects();
    const fail = failing(1);
    const { deliver } = worker(async (ctx) => {
      for (let i = 0; i < 600; i++) await ctx.step(`a ${i}`, () => 1);
      fail();
      for (let i = 0; i < 401; i++) await ctx.step(`b ${i}`, () => now('b'));
    });
    await deliver();
    expect(await deliver()).toMatchObject({
      action: 'retry',
      error: expect.objectContaining({ code: 'invalid-step', message: expect.stringContaining('at most 1000 steps') }),
    });
    expect(done).toHaveLength(400);
  });
});

describe('steps at the same time', () => {
  it('are each done once, whichever of them an attempt has come to', async () => {
    const { done, now } = effects();
    const { finish } = worker(async (ctx) => {
      const step = (name: string, until: number) =>
        ctx.step(name, async () => {
          if (ctx.attempt < until) throw new Error(`${name}: try again`);
          return now(name);
        });
      return (await Promise.all([step('a', 3), step('b', 2), step('c', 1)])).length;
    });
    expect(await finish()).toMatchObject({ action: 'ack', result: 3 });
    expect(done).toEqual(['c', 'b', 'a']);
  });

  it('may follow each other in chains, in another order on each attempt', async () => {
    const { world, done, finish } = chains(3_000);
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(done).toEqual(['b 1', 'b 2', 'a 1', 'a 2']);
    expect(world.timers).toBe(0);
  });

  /** Two chains. On the first attempt the first one fails late; on the second attempt its next step comes while the second chain is behind. */
  function chains(slowMs: number) {
    const { done, now } = effects();
    const stand = worker(async (ctx) => {
      const wait = (ms: number) => new Promise<void>((resolve) => void stand.world.clock.after(ms, resolve));
      const chain = async (name: string, fails: boolean, pauseMs: number) => {
        await ctx.step(`${name} 1`, async () => {
          if (name === 'a') await wait(5_000);
          return now(`${name} 1`);
        });
        await wait(pauseMs);
        if (fails) throw new Error('try again');
        await ctx.step(`${name} 2`, () => now(`${name} 2`));
      };
      await Promise.all([chain('a', ctx.attempt === 1, 0), chain('b', false, ctx.attempt === 1 ? 0 : slowMs)]);
    });
    return { ...stand, done };
  }

  it('by the hundreds are given their turn at once when all that is known has been asked for', async () => {
    const { count, now } = effects();
    const { finish, world } = worker(async (ctx) => {
      const names = Array.from({ length: 1_000 }, (_, i) => `${i}`);
      // The first attempt does the second half.
      await Promise.all(
        names.map((name, i) => ctx.step(name, () => (ctx.attempt === 1 && i < 500 ? Promise.reject(new Error('try again')) : now('step')))),
      );
    });
    const startedAt = performance.now();
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(count('step')).toBe(1_000);
    expect(world.clock.now()).toBeLessThan(2_000);
    expect(performance.now() - startedAt).toBeLessThan(5_000);
  });

  it('are waited for when the handler fails meanwhile: the next attempt does not meet them', async () => {
    const { done, now } = effects();
    const slow = latch();
    const { world, receiver, finish } = worker(async (ctx) => {
      await Promise.all([
        ctx.step('slow', async () => {
          await slow.promise;
          return now('slow');
        }),
        ctx.attempt === 1 ? Promise.reject(new Error('try again')) : 0,
      ]);
    });
    let verdict: unknown;
    void receiver.process([delivery('a')]).then(([given]) => (verdict = given));
    await world.advance(20_000);
    expect(verdict).toBeUndefined();
    slow.open();
    await world.settle();
    expect(verdict).toMatchObject({ action: 'retry', reason: 'failed' });
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(done).toEqual(['slow']);
  });

  it('that wait for their turn do not keep a handler that has failed', async () => {
    const { done, now } = effects();
    const { world, deliver, receiver } = worker(async (ctx) => {
      if (ctx.attempt === 1) await ctx.step('a', () => now('a'));
      await Promise.all([ctx.attempt > 1 && ctx.step('new', () => now('new')), Promise.reject(new Error('try again'))]);
    });
    await deliver();
    let verdict: unknown;
    void receiver.process([delivery('a')]).then(([given]) => (verdict = given));
    for (let i = 0; i < 5; i++) await world.settle();
    expect(verdict).toMatchObject({ action: 'retry', reason: 'failed', error: new Error('try again') });
    expect(done).toEqual(['a']);
    expect(world.timers).toBe(0);
  });

  it('are not gone on with when the handler has failed', async () => {
    const { done, now } = effects();
    const slow = latch();
    const { world, receiver } = worker(async (ctx) => {
      const chain = async () => {
        await ctx.step('first', () => slow.promise);
        await ctx.step('second', () => now('second'));
      };
      await Promise.all([chain(), Promise.reject(new Error('try again'))]);
    });
    const processing = receiver.process([delivery('a')]);
    await world.settle();
    slow.open();
    expect((await processing)[0]).toMatchObject({ action: 'retry' });
    await world.settle();
    expect(done).toEqual([]);
  });

  it('that the handler does not wait for are waited for, and fail it when they fail', async () => {
    const { done, now } = effects();
    const { finish } = worker((ctx) => {
      ctx
        .step('forgotten', async () => {
          await Promise.resolve();
          if (ctx.attempt < 3) throw new Error('try again');
          return now('forgotten');
        })
        .catch(() => {});
      return ctx.attempt;
    });
    expect(await finish()).toMatchObject({ action: 'ack', result: 3 });
    expect(done).toEqual(['forgotten']);
  });

  describe('that the handler forgets', () => {
    const unheard: unknown[] = [];
    const listen = (error: unknown) => void unheard.push(error);
    beforeEach(() => void process.on('unhandledRejection', listen));
    afterEach(() => {
      process.off('unhandledRejection', listen);
      expect(unheard.splice(0)).toEqual([]);
    });

    it.each<[string, (ctx: StepsContext) => unknown]>([
      ['a step', (ctx) => ctx.step('forgotten', () => Promise.reject(new Error('try again')))],
      ['a step that can not be one', (ctx) => ctx.step('', () => 1)],
      ['a step whose name is taken', (ctx) => ctx.step('last', () => 1)],
      ['a saga', (ctx) => ctx.saga('trip', () => Promise.reject(new Error('try again')))],
      ['a step of a saga', (ctx) => ctx.saga('trip', async (saga) => void saga.step('car', () => Promise.reject(new Error('try again'))))],
      [
        'a step after its saga',
        async (ctx) => {
          const saga = await ctx.saga('trip', (each) => ({ each }));
          void saga.each.step('late', () => 1);
        },
      ],
    ])('%s: its failure ends no process, and is the handler’s own, also when it comes early', async (_, forget) => {
      const { deliver } = worker(async (ctx) => {
        if (ctx.attempt === 1) void forget(ctx);
        for (const name of ['first', 'second']) await ctx.step(name, () => 1);
        await ctx.step('last', () => 1);
      });
      expect(await deliver()).toMatchObject({ action: 'retry', reason: 'failed', error: expect.any(Error) });
      expect(await deliver()).toMatchObject({ action: 'ack' });
    });

    it('the time: its failure is the handler’s own', async () => {
      const { faults, deliver } = worker(async (ctx) => {
        if (ctx.attempt === 1) void ctx.now();
        for (let i = 0; i < 10; i++) await Promise.resolve();
      });
      faults.next.readEntries = ['before'];
      expect(await deliver()).toMatchObject({ action: 'retry', error: new Error('readEntries: request lost') });
      expect(await deliver()).toMatchObject({ action: 'ack' });
    });

    it('fails nothing that asks for it later, and sees to its failure', async () => {
      const { deliver } = worker(async (ctx) => {
        const charge = ctx.step('charge', () => Promise.reject(new Error('no answer')));
        await ctx.step('mail', () => 1);
        return charge.catch((error: Error) => error.message);
      });
      expect(await deliver()).toMatchObject({ action: 'ack', result: 'no answer' });
    });
  });
});

describe('a new step that waits for the steps of earlier attempts', () => {
  /** An attempt at the `first` steps that fails, and one whose handler is `second`; `ms` is how long that took. */
  async function afterSteps(
    first: readonly string[],
    second: (ctx: StepsContext, wait: (ms: number) => Promise<void>, now: (what: string) => Promise<string>) => unknown,
    options: Record<string, unknown> = {},
  ) {
    const { done, now } = effects();
    const wait = (ms: number) => new Promise<void>((resolve) => void stand.world.clock.after(ms, resolve));
    const stand = worker(
      async (ctx) => {
        if (ctx.attempt > 1) return second(ctx, wait, now);
        for (const name of first) await ctx.step(name, () => name);
        throw new Error('try again');
      },
      {},
      options,
    );
    await stand.deliver();
    const startedAt = stand.world.clock.now();
    const verdict = await stand.deliver();
    return { done, verdict, ms: stand.world.clock.now() - startedAt };
  }

  it('is done when the last of them was asked for less than 10 seconds after the one before', async () => {
    const { done, verdict } = await afterSteps(['a', 'b'], (ctx, wait, now) =>
      Promise.all([
        ctx.step('new', () => now('new')),
        wait(8_000).then(() => ctx.step('a', () => now('a'))),
        wait(16_000).then(() => ctx.step('b', () => now('b'))),
      ]),
    );
    expect(verdict).toMatchObject({ action: 'ack' });
    expect(done).toEqual(['new']);
  });

  it('is not done when only some of them were asked for', async () => {
    const { done, verdict, ms } = await afterSteps(['a', 'b'], (ctx, wait, now) =>
      Promise.all([ctx.step('new', () => now('new')), wait(8_000).then(() => ctx.step('a', () => now('a')))]),
    );
    expect(verdict).toMatchObject({ action: 'retry', error: code('steps-changed', 'has done "b", but') });
    expect(ms).toBeGreaterThanOrEqual(18_000);
    expect(ms).toBeLessThan(20_000);
    expect(done).toEqual([]);
  });

  it('is told of five of those that are missing', async () => {
    const { verdict } = await afterSteps(['1', '2', '3', '4', '5', '6', '7'], (ctx) => ctx.step('new', () => 1));
    expect(verdict).toMatchObject({ error: code('steps-changed', 'An earlier attempt has done "1", "2", "3", "4", "5" and 2 more, but') });
  });

  it('is not done, and told why at once, when the time of its handler is up', async () => {
    const { done, verdict, ms } = await afterSteps(['a'], (ctx, _, now) => ctx.step('new', () => now('new')), { handlerTimeoutMs: 3_000 });
    expect(verdict).toMatchObject({ action: 'retry', error: code('handler-timeout') });
    expect(ms).toBeLessThan(5_000);
    expect(done).toEqual([]);
  });

  it('is not done, and told why at once, when the time of its handler was up before the journal was read', async () => {
    const store = memoryStore();
    const slow = latch();
    let reads = 0;
    const { done, now } = effects();
    const stand = worker(
      async (ctx) => {
        if (ctx.attempt > 1) return ctx.step('new', () => now('new'));
        await ctx.step('a', () => 1);
        throw new Error('try again');
      },
      { store: { ...store, readEntries: async (asked) => (reads++ > 0 && (await slow.promise), store.readEntries(asked)) } },
      { handlerTimeoutMs: 1_000, storeTimeoutMs: 9_000 },
    );
    await stand.deliver();
    let verdict: unknown;
    void stand.receiver.process([delivery('a')]).then(([given]) => (verdict = given));
    await stand.world.advance(1_500);
    expect(verdict).toBeUndefined();
    slow.open();
    await stand.world.advance(1);
    expect(verdict).toMatchObject({ action: 'retry', error: code('handler-timeout') });
    expect(done).toEqual([]);
  });

  it('is not forgotten when another that waited has been given its turn', async () => {
    const { done, now } = effects();
    const stand = worker(async (ctx) => {
      const wait = (ms: number) => new Promise<void>((resolve) => void stand.world.clock.after(ms, resolve));
      const saga = ctx.saga('trip', async ({ step }) => {
        if (ctx.attempt === 1) await step('flight', () => 1);
        else void wait(1_000).then(() => step('flight', () => 1).catch(() => {}));
        if (ctx.attempt > 1) throw new TerminalError('over budget');
      });
      if (ctx.attempt === 1) await Promise.all([saga, ctx.step('dropped', () => 1)]);
      if (ctx.attempt === 1) throw new Error('try again');
      await Promise.all([saga.catch(() => {}), ctx.step('new', () => now('new'))]);
    });
    await stand.deliver();
    const startedAt = stand.world.clock.now();
    expect(await stand.deliver()).toMatchObject({ action: 'retry', error: code('steps-changed', 'has done "dropped", but') });
    expect(stand.world.clock.now() - startedAt).toBeLessThan(20_000);
    expect(done).toEqual([]);
  });

  it('is not waited for by one that was begun before, and whose effect is in doubt', async () => {
    const { done, now } = effects();
    const { deliver } = worker(async (ctx) => {
      const charge = () =>
        ctx.step('charge', () => (ctx.attempt === 1 ? Promise.reject(new Error('lost')) : now('charge')), { confirm: () => 'absent' });
      if (ctx.attempt === 1) await Promise.all([ctx.step('a', () => now('a')), charge()]);
      await charge();
      await ctx.step('a', () => now('a'));
    });
    await deliver();
    expect(await deliver()).toMatchObject({ action: 'ack' });
    expect(done).toEqual(['a', 'charge']);
  });
});

describe('code that changes between attempts', () => {
  /** An attempt of old code that fails after its steps, and one of new code. */
  async function change(
    before: (string | readonly string[])[],
    after: (string | readonly string[])[],
    options: Record<string, unknown> = {},
  ) {
    const { done, now } = effects();
    const run = (steps: (string | readonly string[])[]) => async (ctx: StepsContext) => {
      for (const names of steps) await Promise.all([names].flat().map((name) => ctx.step(name, () => now(name))));
    };
    const old = worker(async (ctx) => {
      await run(before)(ctx);
      throw new Error('try again');
    });
    const { world, store } = old;
    await old.deliver();
    done.length = 0;
    const verdict = await worker(run(after), { world, store }, options).deliver();
    return { done, verdict, told: verdict.action === 'retry' ? (verdict.error as Error & { code: string }) : undefined, world };
  }

  it.each([
    ['goes on with new steps', ['a', 'b'], ['a', 'b', 'c'], ['c']],
    ['asks for the same steps in another order', ['a', 'b'], ['b', 'a'], []],
    ['makes them parallel', ['a', 'b'], [['b', 'a', 'c']], ['c']],
    ['makes them serial', [['a', 'b']], ['a', 'b', 'c'], ['c']],
  ])('may change in that it %s', async (_, before, after, done) => {
    expect(await change(before, after)).toMatchObject({ done, verdict: { action: 'ack' } });
  });

  it.each([
    ['renames a step', ['a', 'b'], ['A', 'b'], '"a", "b", but this one asks for "A", which is new'],
    ['renames the last step', ['a', 'b'], ['a', 'B'], '"b", but this one asks for "B", which is new'],
    ['puts a new step before the old ones', ['a'], ['new', 'a'], '"a", but this one asks for "new", which is new'],
    ['takes a step out, and adds one', ['a', 'b'], ['b', 'c'], '"a", but this one asks for "c", which is new'],
    ['takes the last step out', ['a', 'b'], ['a'], '"b", but this one has ended without asking for it'],
  ])('is found before anything new is done: it %s', async (_, before, after, message) => {
    const { done, told, world } = await change(before, after);
    expect(done).toEqual([]);
    expect(told).toMatchObject({ code: 'steps-changed', message: expect.stringContaining(`An earlier attempt has done ${message}`) });
    expect(told!.message).toContain('bring the step back, or name it in `retiredSteps`');
    expect(world.timers).toBe(0);
  });

  it('may ask for the time no more', async () => {
    const { deliver } = worker(async (ctx) => {
      if (ctx.attempt > 1) return ctx.step('new', () => 'done');
      await ctx.now();
      throw new Error('try again');
    });
    await deliver();
    expect(await deliver()).toMatchObject({ action: 'ack', result: 'done' });
  });

  it('may give steps up that it names', async () => {
    const options = { retiredSteps: ['a', 'never was'] };
    expect(await change(['a', 'b'], ['b', 'c'], options)).toMatchObject({ done: ['c'], verdict: { action: 'ack' } });
    expect(await change(['a', 'b'], ['b'], options)).toMatchObject({ done: [], verdict: { action: 'ack' } });
  });
});

describe('values that are the same on every attempt', () => {
  it('are the time of the first attempt, and what is made of the key and a name', async () => {
    const fail = failing(3);
    const seen: unknown[] = [];
    const { finish, world } = worker(async (ctx) => {
      seen.push([await ctx.now(), await ctx.now(), ctx.uuid('a'), ctx.uuid('b'), ctx.random('a'), ctx.random('b')]);
      fail();
    });
    const startedAt = world.clock.wall();
    await finish();
    expect(world.clock.wall()).toBeGreaterThan(startedAt);
    expect(seen).toHaveLength(4);
    for (const values of seen) expect(values).toEqual(seen[0]);
    const [now, again, a, b, x, y] = seen[0] as [number, number, string, string, number, number];
    expect([now, again]).toEqual([startedAt, startedAt]);
    expect(new Set([a, b]).size).toBe(2);
    expect(x).not.toBe(y);
    await finish('another message');
    expect((seen[4] as unknown[])[2]).not.toBe(a);
  });

  it('are UUIDs of version 8', () => {
    for (let i = 0; i < 1_000; i++)
      expect(uuidOf(`${i}`, 'a')).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(new Set(Array.from({ length: 10_000 }, (_, i) => uuidOf('key', `${i}`))).size).toBe(10_000);
    // Pinned: they must not change with a version of this library.
    expect(uuidOf('key', 'name')).toBe('1c7540a4-3e63-8b14-a66d-6bfa676c6681');
    expect(randomOf('key', 'name')).toBe(0.38798471183436756);
  });

  it('are random numbers of the whole range', () => {
    const numbers = Array.from({ length: 10_000 }, (_, i) => randomOf('key', `${i}`));
    expect(numbers.every((each) => each >= 0 && each < 1)).toBe(true);
    const counts = Array.from({ length: 10 }, (_, tenth) => numbers.filter((each) => Math.floor(each * 10) === tenth).length);
    for (const count of counts) expect(count).toBeGreaterThan(850);
    for (const count of counts) expect(count).toBeLessThan(1_150);
  });
});
