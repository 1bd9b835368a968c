import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { memoryStore } from '../../adapters/stores/memory.ts';
import { RetryAfter, type Saga, SagaUndone, TerminalError } from '../../src/index.ts';
import { latch } from '../support/stand.ts';
import { effects, failing, type StepsContext, worker } from './stand.ts';

const code = (expected: string, message = '') =>
  expect.objectContaining({ name: 'ReceiverError', code: expected, message: expect.stringContaining(message) });
const refused = () => new TerminalError('no car is left');

/** A step of a saga that does `name`, and undoes it. */
const booking =
  (saga: Saga, now: (what: string) => Promise<string>) =>
  (name: string): Promise<string> =>
    saga.step(name, () => now(name), { undo: (receipt) => now(`undo ${receipt.replace(/receipt \d+ for /, '')}`).then(() => {}) });

/** Flight, hotel and a car that `car` may refuse. */
function trip(car: () => unknown, more: { undo?: () => unknown; after?: (ctx: StepsContext, error: unknown) => unknown } = {}) {
  const { done, now, count } = effects();
  const handle = async (ctx: StepsContext) => {
    try {
      return await ctx.saga('trip', async (saga) => {
        const book = booking(saga, now);
        await book('flight');
        await saga.step('hotel', () => now('hotel'), {
          undo: async () => {
            await more.undo?.();
            await now('undo hotel');
          },
        });
        await saga.step('insurance', () => now('insurance'));
        await saga.step('car', async () => {
          await car();
          return now('car');
        });
        return 'booked';
      });
    } catch (error) {
      if (!more.after) throw error;
      return more.after(ctx, error);
    }
  };
  return { done, count, handle };
}

describe('a saga', () => {
  it('that succeeds is its steps', async () => {
    const fail = failing(2);
    const { done, handle } = trip(fail);
    expect(await worker(handle).finish()).toMatchObject({ action: 'ack', result: 'booked' });
    expect(done).toEqual(['flight', 'hotel', 'insurance', 'car']);
  });

  it('that fails for good undoes what it has done, the last first, and parks the message', async () => {
    const { done, handle } = trip(() => Promise.reject(refused()));
    expect(await worker(handle).finish()).toMatchObject({
      action: 'dead-letter',
      reason: 'terminal',
      detail: 'SagaUndone: Saga "trip" was undone (hotel, flight): no car is left',
      attempts: 1,
    });
    expect(done).toEqual(['flight', 'hotel', 'insurance', 'undo hotel', 'undo flight']);
  });

  it('that was undone can be answered by the handler, which then goes on', async () => {
    const { done, now } = effects();
    const fail = failing(3);
    const errors: unknown[] = [];
    const { handle, done: booked } = trip(() => Promise.reject(refused()), {
      after: async (ctx, error) => {
        errors.push(error);
        await ctx.step('apologise', () => now('apology'));
        fail();
        return 'not booked';
      },
    });
    expect(await worker(handle).finish()).toMatchObject({ action: 'ack', result: 'not booked' });
    expect(booked).toEqual(['flight', 'hotel', 'insurance', 'undo hotel', 'undo flight']);
    expect(done).toEqual(['apology']);
    expect(errors).toHaveLength(4);
    for (const error of errors) {
      expect(error).toBeInstanceOf(SagaUndone);
      expect(error).toMatchObject({ undone: ['hotel', 'flight'], message: 'Saga "trip" was undone (hotel, flight): no car is left' });
      expect((error as Error).cause).toMatchObject({ message: 'no car is left' });
    }
  });

  it('has nothing to undo if nothing was done', async () => {
    const { deliver } = worker((ctx) =>
      ctx.saga('trip', () => {
        throw refused();
      }),
    );
    expect(await deliver()).toMatchObject({ detail: 'SagaUndone: Saga "trip" was undone (nothing): no car is left' });
  });

  it('is undone although its body comes to an end on the next attempt', async () => {
    const { done, now } = effects();
    const unable = failing(1);
    const { finish } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        await saga.step('flight', () => now('flight'), {
          undo: () => {
            unable();
            return now('undo flight');
          },
        });
        if (ctx.attempt === 1) throw refused();
        return 'booked';
      }),
    );
    expect(await finish()).toMatchObject({ action: 'dead-letter', detail: 'SagaUndone: Saga "trip" was undone (flight): no car is left' });
    expect(done).toEqual(['flight', 'undo flight']);
  });

  it('is recorded as failed before anything is undone', async () => {
    const written: string[] = [];
    const real = memoryStore();
    const store: typeof real = {
      ...real,
      writeEntries: (writes) => (written.push(...writes.map(({ name, state }) => `${name} ${state}`)), real.writeEntries(writes)),
    };
    const { done, handle } = trip(() => Promise.reject(refused()));
    await worker(handle, { store }).deliver();
    expect(done.slice(-2)).toEqual(['undo hotel', 'undo flight']);
    expect(written.slice(-4)).toEqual(['$trip/car failed', '$trip failed', '$trip/hotel/undo done', '$trip/flight/undo done']);
  });

  it('is not undone by an error that may pass, nor when the attempts are used up: a replay goes on', async () => {
    const fail = failing(3);
    const { done, handle } = trip(fail);
    const { finish, store, key } = worker(handle, {}, { maxAttempts: 3 });
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'max-attempts' });
    await store.replay(key);
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(done).toEqual(['flight', 'hotel', 'insurance', 'car']);
  });

  it('is undone by a final error of its body too, once and for all, whatever its code would say later', async () => {
    const { done, now } = effects();
    const hang = latch();
    const handle = (hangs: boolean) => (ctx: StepsContext) =>
      ctx.saga('trip', async (saga) => {
        await booking(saga, now)('flight');
        await saga.step('hotel', () => now('hotel'), { undo: () => (hangs ? hang.promise : now('undo hotel')) });
        if (hangs) throw new TerminalError('over budget');
        await booking(saga, now)('car');
        return 'booked';
      });
    const dead = worker(handle(true));
    const { world, store } = dead;
    void dead.receiver.process([{ message: { id: 'a', body: '{"id":"a"}', headers: { id: 'a' } } }]);
    await world.settle();
    for (const verb of ['claim', 'settle', 'extend', 'writeEntries', 'readEntries'] as const) dead.faults.broken[verb] = 'before';
    await world.advance(40_000);
    // The price has fallen meanwhile.
    expect(await worker(handle(false), { world, store }).finish()).toMatchObject({
      action: 'dead-letter',
      detail: 'SagaUndone: Saga "trip" was undone (hotel, flight): over budget',
    });
    expect(done).toEqual(['flight', 'hotel', 'undo hotel', 'undo flight']);
  });

  it('that was undone begins no other step, and does not wait for what its handler has done since', async () => {
    const { done, now } = effects();
    const fail = failing(2);
    const { finish, world } = worker(async (ctx) => {
      const undone = await ctx
        .saga('trip', async (saga) => {
          await booking(saga, now)('flight');
          if (ctx.attempt === 1) throw new TerminalError('over budget');
          await booking(saga, now)('car');
        })
        .catch((error) => error);
      await ctx.step('apologise', () => now('apology'));
      fail();
      return undone.message;
    });
    expect(await finish()).toMatchObject({ action: 'ack', result: 'Saga "trip" was undone (flight): over budget' });
    expect(done).toEqual(['flight', 'undo flight', 'apology']);
    // No more than the pauses between the attempts.
    expect(world.clock.now()).toBeLessThan(4_000);
  });

  it('gives every compensation the result and a key of its own, the same on every attempt', async () => {
    const keys = { do: new Set<string>(), undo: new Set<string>() };
    const seen: unknown[] = [];
    const { finish } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        for (const name of ['flight', 'hotel']) {
          await saga.step(name, ({ key }) => (keys.do.add(key), { at: new Date(0) }), {
            undo: (result, { key, fence, signal }) => {
              seen.push(result, fence, signal.aborted);
              keys.undo.add(key);
              if (ctx.attempt < 3) throw new Error('try again');
            },
          });
        }
        throw refused();
      }),
    );
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'terminal' });
    expect(keys.do.size).toBe(2);
    expect(keys.undo.size).toBe(2);
    expect(new Set([...keys.do, ...keys.undo]).size).toBe(4);
    expect(seen).toEqual([1, 2, 3, 3].flatMap((fence) => [{ at: '1970-01-01T00:00:00.000Z' }, fence, false]));
  });

  it('can be a part of a handler, with steps before and after, and another saga beside it', async () => {
    const { done, now } = effects();
    const fail = failing(1);
    const { finish } = worker(async (ctx) => {
      await ctx.step('flight', () => now('plain flight'));
      const results = await Promise.all(
        ['one', 'two'].map((name) => ctx.saga(name, (saga) => booking(saga, now)('flight')).catch((error) => error.message)),
      );
      await ctx.step('mail', () => now('mail'));
      fail();
      return results;
    });
    expect(await finish()).toMatchObject({ action: 'ack', result: ['receipt 2 for flight', 'receipt 3 for flight'] });
    expect(done).toEqual(['plain flight', 'flight', 'flight', 'mail']);
  });
});

describe('a compensation', () => {
  it('that fails is tried again with the message, and no other is undone twice', async () => {
    const fail = failing(3, () => new RetryAfter(5));
    const { done, handle } = trip(() => Promise.reject(refused()), { undo: fail });
    const { finish } = worker(handle);
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'terminal', attempts: 4 });
    expect(done).toEqual(['flight', 'hotel', 'insurance', 'undo hotel', 'undo flight']);
  });

  it.each([
    ['an error', new Error('503')],
    ['a final one', new TerminalError('503')],
    ['one that says when to come back', new RetryAfter(5, '503')],
  ])('that fails by %s has it as the cause of the one that is told', async (_, cause) => {
    const told: unknown[] = [];
    const { handle } = trip(() => Promise.reject(refused()), { undo: () => Promise.reject(cause) });
    const verdict = await worker((ctx) =>
      Promise.resolve(handle(ctx)).catch((error) => {
        told.push(error);
        throw error;
      }),
    ).deliver();
    expect(verdict.action).toBe(cause instanceof TerminalError ? 'dead-letter' : 'retry');
    expect(told).toEqual([expect.objectContaining({ cause })]);
    expect((told[0] as Error).name).toBe(cause.name);
  });

  it.each([
    ['keeps failing', () => new Error('503'), 'max-attempts', 4, 'Error: 503'],
    ['fails for good', () => new TerminalError('too late to cancel'), 'terminal', 1, 'TerminalError: too late to cancel'],
  ])(
    'that %s parks the message with what has been undone and what not; a replay goes on from there',
    async (_, error, reason, attempts, why) => {
      const { done, now } = effects();
      let broken = true;
      const { finish, store, key } = worker(
        (ctx) =>
          ctx.saga('trip', async (saga) => {
            const book = booking(saga, now);
            await book('flight');
            await saga.step('hotel', () => now('hotel'), {
              undo: () => {
                if (broken) throw error();
                return now('undo hotel');
              },
            });
            await book('car');
            await saga.step('guide', () => Promise.reject(refused()));
          }),
        {},
        { maxAttempts: 4 },
      );
      const detail = `Saga "trip" is being undone, and "hotel" can't be: ${why}; undone: car; not undone: hotel, flight; it had failed by: no car is left`;
      expect(await finish()).toMatchObject({ action: 'dead-letter', reason, attempts, detail: expect.stringContaining(detail) });
      expect(await store.inspect(key)).toMatchObject({ state: 'parked', detail: expect.stringContaining(detail) });
      expect(done).toEqual(['flight', 'hotel', 'car', 'undo car']);
      broken = false;
      await store.replay(key);
      expect(await finish()).toMatchObject({
        action: 'dead-letter',
        detail: 'SagaUndone: Saga "trip" was undone (car, hotel, flight): no car is left',
      });
      expect(done).toEqual(['flight', 'hotel', 'car', 'undo car', 'undo hotel', 'undo flight']);
    },
  );

  it('of a worker that has lost its claim is not recorded', async () => {
    const { done, now } = effects();
    let token = '';
    const { deliver, store, key } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        await saga.step('flight', () => now('flight'), {
          undo: async () => {
            await store.settle([{ key, token, retainMs: 60_000, as: 'released', counted: true }]);
            await now('undo flight');
          },
        });
        throw refused();
      }),
    );
    const claim = store.claim;
    Object.assign(store, { claim: (asks: Parameters<typeof claim>[0]) => ((token = asks[0]!.token), claim(asks)) });
    expect(await deliver()).toMatchObject({ action: 'retry', reason: 'fenced', error: code('claim-lost') });
    expect(done).toEqual(['flight', 'undo flight']);
  });
});

describe('parallel steps of a saga', () => {
  it('are undone in the reverse of the order in which they were begun, when all of them have come to an end', async () => {
    const { done, now } = effects();
    const { world, receiver } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        const wait = (ms: number) => new Promise<void>((resolve) => void world.clock.after(ms, resolve));
        const slowly = (name: string, ms: number) =>
          saga.step(name, () => wait(ms).then(() => now(name)), { undo: () => now(`undo ${name}`) });
        await Promise.all([slowly('a', 3_000), slowly('b', 2_000), slowly('c', 1_000), saga.step('d', () => Promise.reject(refused()))]);
      }),
    );
    let verdict: unknown;
    void receiver.process([{ message: { id: 'a', body: '{}', headers: { id: 'a' } } }]).then(([given]) => (verdict = given));
    await world.advance(2_999);
    expect(done).toEqual(['c', 'b']);
    await world.advance(1);
    expect(verdict).toMatchObject({ action: 'dead-letter', reason: 'terminal' });
    expect(done).toEqual(['c', 'b', 'a', 'undo c', 'undo b', 'undo a']);
  });

  it('begin nothing more when one has failed for good', async () => {
    const { done, now } = effects();
    const slow = latch();
    const { world, receiver } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        const chain = async () => {
          await saga.step('a', () => slow.promise.then(() => now('a')), { undo: () => now('undo a') });
          await saga.step('b', () => now('b'), { undo: () => now('undo b') });
        };
        await Promise.all([chain(), saga.step('c', () => Promise.reject(refused()))]);
      }),
    );
    const processing = receiver.process([{ message: { id: 'a', body: '{}', headers: { id: 'a' } } }]);
    await world.settle();
    slow.open();
    expect((await processing)[0]).toMatchObject({ action: 'dead-letter', reason: 'terminal' });
    expect(done).toEqual(['a', 'undo a']);
  });

  it('that are in chains are all undone after a crash, also those that come late', async () => {
    const { done, now } = effects();
    const fail = failing(1);
    const { finish, world } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        const wait = (ms: number) => new Promise<void>((resolve) => void world.clock.after(ms, resolve));
        const step = (name: string, undo: () => unknown = () => now(`undo ${name}`)) => saga.step(name, () => now(name), { undo });
        const chain = async () => {
          await step('a');
          await wait(ctx.attempt === 1 ? 0 : 3_000);
          await step('b', async () => {
            fail();
            await now('undo b');
          });
        };
        const refuse = async () => {
          await saga.step('c', async () => {
            await wait(1_000);
            throw refused();
          });
        };
        await Promise.all([chain(), refuse()]);
      }),
    );
    // The first attempt fails in undoing b; on the second one the saga fails long before its code comes to b.
    expect(await finish()).toMatchObject({ action: 'dead-letter', detail: expect.stringContaining('was undone (b, a)') });
    expect(done).toEqual(['a', 'b', 'undo b', 'undo a']);
    expect(world.timers).toBe(0);
  });

  it.each([
    ['done', { done: 'found' }, ['undo b', 'undo a']],
    ['absent', 'absent', ['undo a']],
  ])('whose outcome is unknown are asked for before anything is undone: %s', async (_, answer, undone) => {
    const { done, now } = effects();
    const asked: string[] = [];
    const answers: unknown[] = ['unknown', answer];
    const { finish } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        await saga.step('a', () => 1, { undo: () => now('undo a') });
        await Promise.all([
          saga.step('b', () => Promise.reject(new Error('socket hang up')), {
            undo: () => now('undo b'),
            confirm: (key) => (asked.push(key), answers.shift() as never),
          }),
          saga.step('c', () => Promise.reject(refused())),
        ]);
      }),
    );
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'terminal' });
    expect(done).toEqual(undone);
    expect(asked).toHaveLength(2);
  });

  it('that are done, but not as their schema wants, are not forgotten: nothing is undone before they fit', async () => {
    const { done, now } = effects();
    let schema: z.ZodType = z.number();
    const { finish, store, key } = worker(
      (ctx) =>
        ctx.saga('trip', async (saga) => {
          await Promise.all([
            saga.step('a', () => now('a'), { schema, undo: () => now('undo a') }),
            saga.step('b', () => Promise.reject(refused())),
          ]);
        }),
      {},
      { maxAttempts: 2 },
    );
    expect(await finish()).toMatchObject({
      action: 'dead-letter',
      reason: 'max-attempts',
      detail: expect.stringContaining('"trip/a" to fit its schema'),
    });
    expect(done).toEqual(['a']);
    schema = z.string();
    await store.replay(key);
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'terminal' });
    expect(done).toEqual(['a', 'undo a']);
  });

  it('that the body does not wait for are waited for, and fail it when they fail for good', async () => {
    const { done, now } = effects();
    const { deliver } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        await booking(saga, now)('flight');
        saga.step('car', () => Promise.reject(refused())).catch(() => {});
        return 'booked';
      }),
    );
    expect(await deliver()).toMatchObject({ action: 'dead-letter', detail: 'SagaUndone: Saga "trip" was undone (flight): no car is left' });
    expect(done).toEqual(['flight', 'undo flight']);
  });

  it('that the body forgets fail it too when they have failed for good before its end', async () => {
    const { done, now } = effects();
    const { deliver } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        void saga.step('car', () => Promise.reject(refused()));
        await booking(saga, now)('flight');
        await ctx.step('elsewhere', () => 1);
        return 'booked';
      }),
    );
    expect(await deliver()).toMatchObject({ action: 'dead-letter', detail: 'SagaUndone: Saga "trip" was undone (flight): no car is left' });
    expect(done).toEqual(['flight', 'undo flight']);
  });

  it('can’t be begun after their saga', async () => {
    const { done, now } = effects();
    let late: Saga | undefined;
    const { deliver } = worker(async (ctx) => {
      await ctx.saga('trip', (saga) => void (late = saga));
      await late!.step('car', () => now('car'));
    });
    expect(await deliver()).toMatchObject({
      action: 'retry',
      error: code('invalid-step', 'Step "car" was begun after its saga had ended: wait for it'),
    });
    expect(done).toEqual([]);
  });

  it('can’t be begun after their saga has failed either', async () => {
    const { done, now } = effects();
    let late: Saga | undefined;
    const { deliver } = worker(async (ctx) => {
      await ctx
        .saga('trip', (saga) => {
          late = saga;
          throw new Error('try again');
        })
        .catch(() => {});
      await late!.step('car', () => now('car'));
    });
    expect(await deliver()).toMatchObject({ action: 'retry', error: code('invalid-step', 'after its saga had ended') });
    expect(done).toEqual([]);
  });

  it('that may have been done keep the others from being undone, until it is known', async () => {
    const { done, now } = effects();
    const { deliver, finish, world } = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        await booking(saga, now)('flight');
        const hangsUp = async () => {
          await now('hotel');
          await new Promise<void>((resolve) => void world.clock.after(1_000, resolve));
          throw new Error('socket hang up');
        };
        await Promise.all([
          saga.step('hotel', hangsUp, {
            confirm: () => ({ done: 'found' }),
            undo: (found) => now(`undo ${found} hotel`),
          }),
          saga.step('car', () => Promise.reject(refused())),
        ]);
      }),
    );
    expect(await deliver()).toMatchObject({ action: 'retry', error: new Error('socket hang up') });
    expect(done).toEqual(['flight', 'hotel']);
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'terminal' });
    expect(done).toEqual(['flight', 'hotel', 'undo found hotel', 'undo flight']);
  });

  it('whose outcome stays unknown park the message, with nothing undone', async () => {
    const { done, now } = effects();
    const { finish } = worker(
      (ctx) =>
        ctx.saga('trip', async (saga) => {
          await saga.step('a', () => 1, { undo: () => now('undo a') });
          await Promise.all([
            saga.step('b', () => Promise.reject(new Error('socket hang up')), { undo: () => now('undo b'), confirm: () => 'unknown' }),
            saga.step('c', () => Promise.reject(refused())),
          ]);
        }),
      {},
      { maxAttempts: 3 },
    );
    expect(await finish()).toMatchObject({
      action: 'dead-letter',
      reason: 'unknown-outcome',
      detail: expect.stringContaining('Step "trip/b"'),
    });
    expect(done).toEqual([]);
  });
});

describe('a saga of as many steps as there may be', () => {
  it('has room to be undone', async () => {
    const { done, now } = effects();
    const { finish } = worker((ctx) =>
      ctx.saga('long', async (saga) => {
        for (let i = 0; i < 1_000; i++) await saga.step(`${i}`, () => i, { undo: () => now('undo') });
        throw refused();
      }),
    );
    expect(await finish()).toMatchObject({ action: 'dead-letter', reason: 'terminal' });
    expect(done).toHaveLength(1_000);
  });
});

describe('code of a saga that changes between attempts', () => {
  it('is found before anything is undone without the step that it has lost', async () => {
    const { done, now } = effects();
    const first = worker((ctx) =>
      ctx.saga('trip', async (saga) => {
        await booking(saga, now)('flight');
        await booking(saga, now)('hotel');
        throw new Error('try again');
      }),
    );
    await first.deliver();
    const { world, store } = first;
    const changed = (options: object) =>
      worker(
        (ctx) =>
          ctx.saga('trip', async (saga) => {
            await booking(saga, now)('flight');
            throw refused();
          }),
        { world, store },
        options as Record<string, unknown>,
      );
    expect(await changed({}).deliver()).toMatchObject({
      action: 'retry',
      error: expect.objectContaining({
        code: 'steps-changed',
        message: expect.stringContaining('has done "trip/hotel", but this one undoes the saga "trip" without it'),
      }),
    });
    expect(done).toEqual(['flight', 'hotel']);
    expect(await changed({ retiredSteps: ['trip/hotel'] }).finish()).toMatchObject({ action: 'dead-letter', reason: 'terminal' });
    expect(done).toEqual(['flight', 'hotel', 'undo flight']);
  });
});

describe('code of a saga that changes', () => {
  it('is found before a new step of it is done, while one of the handler is missing', async () => {
    const { done, now } = effects();
    const { deliver } = worker(async (ctx) => {
      if (ctx.attempt === 1) await ctx.step('dropped', () => 1);
      if (ctx.attempt === 1) throw new Error('try again');
      await ctx.saga('trip', (saga) => saga.step('new', () => now('new')));
    });
    await deliver();
    expect(await deliver()).toMatchObject({ action: 'retry', error: code('steps-changed', 'has done "dropped", but') });
    expect(done).toEqual([]);
  });

  it('is told by its own steps, when it is undone while others of the handler have still to come', async () => {
    const { deliver } = worker(async (ctx) => {
      await ctx.saga('trip', async (saga) => {
        await saga.step('flight', () => 1);
        if (ctx.attempt === 1) await saga.step('dropped', () => 1);
        if (ctx.attempt > 1) throw refused();
      });
      await ctx.step('mail', () => 1);
      throw new Error('try again');
    });
    await deliver();
    expect(await deliver()).toMatchObject({ action: 'retry', error: code('steps-changed', 'has done "trip/dropped", but') });
  });

  it('is told at once when nobody else can ask for its steps: the handler has ended', async () => {
    const { deliver, world } = worker(async (ctx) => {
      const saga = ctx.saga('trip', async ({ step }) => {
        if (ctx.attempt === 1) await step('dropped', () => 1);
        await new Promise<void>((resolve) => void world.clock.after(100, resolve));
        throw ctx.attempt === 1 ? new Error('try again') : refused();
      });
      if (ctx.attempt === 1) await saga;
      else saga.catch(() => {});
    });
    await deliver();
    const startedAt = world.clock.now();
    expect(await deliver()).toMatchObject({ action: 'retry', error: code('steps-changed', 'has done "trip/dropped", but') });
    expect(world.clock.now() - startedAt).toBeLessThan(5_000);
  });
});

describe('what can’t be a saga', () => {
  it.each([
    [
      'one with a / in its name',
      (ctx: StepsContext) => ctx.saga('a/b', () => 1),
      code(
        'invalid-step',
        'Expected the name of a saga to be text of 1 to 200 characters, on one line, not beginning with $, without /, got "a/b"',
      ),
    ],
    [
      'one with a step with a / in its name',
      (ctx: StepsContext) => ctx.saga('a', (saga) => saga.step('b/undo', () => 1)),
      code('invalid-step', 'Expected the name of a step of a saga to be text'),
    ],
    [
      'something else than a function',
      (ctx: StepsContext) => ctx.saga('a', 'b' as never),
      code('invalid-step', 'to be a function, got "b"'),
    ],
    [
      'one with an undo that is no function',
      (ctx: StepsContext) => ctx.saga('a', (saga) => saga.step('b', () => 1, { undo: 1 as never })),
      code('invalid-step', 'Expected step "b: `undo`" to be a function, got 1'),
    ],
    [
      'two of one name',
      (ctx: StepsContext) => Promise.all([ctx.saga('a', () => 1), ctx.saga('a', () => 2)]),
      code(
        'invalid-step',
        'Expected each saga of a message to have a name of its own, got "a" twice: add what tells them apart, such as "a 7"',
      ),
    ],
    [
      'one inside another',
      (ctx: StepsContext) => ctx.saga('a', () => ctx.saga('b', () => 1)),
      code('nested', 'Saga "b" was begun inside another one'),
    ],
    [
      'one inside a step',
      (ctx: StepsContext) => ctx.step('a', () => ctx.saga('b', () => 1)),
      code('nested', 'The saga "b" was begun inside a step of the same message'),
    ],
  ])('is %s', async (_, handle, expected) => {
    expect(await worker(handle).deliver()).toMatchObject({ action: 'retry', error: expected });
  });
});
