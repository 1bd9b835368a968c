import { describe, expect, it } from 'vitest';
import { memoryStore } from '../adapters/stores/memory.ts';
import { RetryAfter, TerminalError } from '../src/index.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

describe('a new message', () => {
  it('is handled once, recorded, and acked; its copies are acked without the handler', async () => {
    const seen: unknown[] = [];
    const { receiver, names, faults } = stand((payload) => void seen.push(payload));
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(actions(await receiver.process([delivery('a', { messageId: 'another' })]))).toEqual(['ack duplicate']);
    expect(seen).toEqual([{ id: 'a' }]);
    expect(names()).toEqual(['received', 'claimed', 'completed', 'received', 'duplicate']);
    // The second delivery was known to this process: no round trip.
    expect(faults.calls.map(({ verb }) => verb)).toEqual(['claim', 'settle']);
  });

  it('costs one round trip to claim and one to settle, however large the batch', async () => {
    const { receiver, faults } = stand(() => {});
    const verdicts = await receiver.process(
      Array.from({ length: 100 }, (_, i) => delivery(`m${i}`)),
      {},
    );
    expect(new Set(actions(verdicts))).toEqual(new Set(['ack completed']));
    expect(faults.calls.filter(({ verb }) => verb === 'claim')).toEqual([{ verb: 'claim', items: 100 }]);
  });

  it('is recorded durably before its verdict is given', async () => {
    const order: string[] = [];
    const { receiver, faults } = stand(() => void order.push('handled'));
    const settle = faults.store.settle;
    faults.store.settle = async (ends) => {
      const answer = await settle(ends);
      order.push('recorded');
      return answer;
    };
    await receiver.process([delivery('a')], { settled: () => order.push('verdict') });
    expect(order).toEqual(['handled', 'recorded', 'verdict']);
  });

  it('gets a context with a downstream key that is the same on every attempt', async () => {
    const keys: string[] = [];
    const { receiver } = stand((_, ctx) => {
      keys.push(`${ctx.attempt} ${ctx.key('charge')}`, `${ctx.attempt} ${ctx.key('mail')}`);
      if (ctx.attempt === 1) throw new Error('once more');
    });
    await receiver.process([delivery('a')]);
    await receiver.process([delivery('a')]);
    const [charge1, mail1, charge2, mail2] = keys.map((key) => key.slice(2));
    expect(keys.map((key) => key[0])).toEqual(['1', '1', '2', '2']);
    expect(charge1).toBe(charge2);
    expect(mail1).toBe(mail2);
    expect(charge1).not.toBe(mail1);
  });

  it('keeps its key even if the handler changes the message', async () => {
    let runs = 0;
    const { receiver } = stand(
      (payload) => {
        runs++;
        payload.id = 'changed';
      },
      { key: (_: unknown, payload: { id: string }) => payload.id },
    );
    await receiver.process([delivery('a')]);
    await receiver.process([delivery('a')]);
    expect(runs).toBe(1);
  });
});

describe('duplicates', () => {
  it('get the stored result where results are on, in another process too', async () => {
    const first = stand(() => ({ receipt: 7 }), { results: true });
    const [verdict] = await first.receiver.process([delivery('a')]);
    expect(verdict).toEqual({ action: 'ack', outcome: 'completed', result: { receipt: 7 } });
    const second = stand(() => 'never', { results: true }, first);
    expect(await second.receiver.process([delivery('a')])).toEqual([{ action: 'ack', outcome: 'duplicate', result: { receipt: 7 } }]);
  });

  it('in one batch run once, and share the verdict, in order', async () => {
    let runs = 0;
    const order: string[] = [];
    const { receiver } = stand(() => void runs++);
    const verdicts = await receiver.process([delivery('a'), delivery('b'), delivery('a', { messageId: 'a2' })], {
      settled: ({ message }) => order.push(message.id),
    });
    expect(actions(verdicts)).toEqual(['ack completed', 'ack completed', 'ack duplicate']);
    expect(runs).toBe(2);
    expect(order.indexOf('a')).toBeLessThan(order.indexOf('a2'));
  });

  it('in one batch are not acked if the first one failed', async () => {
    const { receiver } = stand(() => {
      throw new Error('no');
    });
    expect(actions(await receiver.process([delivery('a'), delivery('a')]))).toEqual(['retry failed', 'retry failed']);
  });

  it('of a running message are given back with what is left of its lease, never acked', async () => {
    const gate = latch();
    const one = stand(() => gate.promise);
    const two = stand(() => 'never', {}, one);
    const running = watch(one.receiver.process([delivery('a')]));
    await one.world.advance(4_000);
    const [verdict] = await two.receiver.process([delivery('a')]);
    expect(verdict).toMatchObject({ action: 'retry', reason: 'busy' });
    expect((verdict as { afterMs: number }).afterMs).toBeGreaterThanOrEqual(26_000);
    gate.open();
    await one.world.settle();
    expect(actions(running.value!)).toEqual(['ack completed']);
    expect(actions(await two.receiver.process([delivery('a')]))).toEqual(['ack duplicate']);
  });

  it('of a running message wait for it, where waitMs says so', async () => {
    const gate = latch();
    const one = stand(() => gate.promise);
    const two = stand(() => 'never', { waitMs: 5_000 }, one);
    void one.receiver.process([delivery('a')]);
    await one.world.settle();
    const waiting = watch(two.receiver.process([delivery('a')]));
    await one.world.advance(1_000);
    expect(waiting.done).toBe(false);
    gate.open();
    await one.world.advance(1_000);
    expect(actions(waiting.value!)).toEqual(['ack duplicate']);
  });

  it('wait no longer than waitMs', async () => {
    const one = stand(() => new Promise(() => {}));
    const two = stand(() => 'never', { waitMs: 5_000 }, one);
    void one.receiver.process([delivery('a')]);
    await one.world.settle();
    const waiting = watch(two.receiver.process([delivery('a')]));
    await one.world.advance(5_100);
    expect(actions(waiting.value!)).toEqual(['retry busy']);
  });
});

describe('a stored result that cannot be decoded', () => {
  it('is neither acked nor handled again, and does not come back before people can have repaired it', async () => {
    const one = stand(() => 'of version 1', { results: true });
    await one.receiver.process([delivery('a')]);
    const codec = {
      encode: String,
      decode() {
        throw new Error('of version 2');
      },
    };
    const two = stand(() => expect.fail('the handler ran'), { results: true, codec }, one);
    expect(await two.receiver.process([delivery('a')])).toMatchObject([
      { action: 'retry', reason: 'store', afterMs: 300_000, error: { code: 'codec' } },
    ]);
  });
});

describe('same key, other payload', () => {
  it('is dead-lettered as a mismatch, told, and never acked', async () => {
    const { receiver, names } = stand(() => {});
    await receiver.process([delivery('a', { payload: { amount: 1, id: 'a' } })]);
    expect(actions(await receiver.process([delivery('a', { payload: { amount: 2, id: 'a' } })]))).toEqual(['dead-letter mismatch']);
    expect(names()).toContain('mismatch');
  });

  it('in another order of members is the same payload', async () => {
    const { receiver } = stand(() => {});
    await receiver.process([delivery('a', { payload: { x: 1, y: 2 } })]);
    expect(actions(await receiver.process([delivery('a', { payload: { y: 2, x: 1 } })]))).toEqual(['ack duplicate']);
  });

  it('is left to the broker where onMismatch says so', async () => {
    const { receiver } = stand(() => {}, { onMismatch: 'retry' });
    await receiver.process([delivery('a')]);
    expect(actions(await receiver.process([delivery('a', { payload: 1 })]))).toEqual(['retry mismatch']);
  });

  it('is found within one batch too', async () => {
    const { receiver } = stand(() => {});
    expect(actions(await receiver.process([delivery('a'), delivery('a', { payload: 1 })]))).toEqual([
      'ack completed',
      'dead-letter mismatch',
    ]);
  });
});

describe('poison', () => {
  it.each([
    ['no key', { headers: {} }, 'invalid-key'],
    ['an empty key', { headers: { id: '' } }, 'invalid-key'],
    ['a lone surrogate', { headers: { id: '\ud800' } }, 'invalid-key'],
    ['an over-long key', { headers: { id: 'x'.repeat(513) } }, 'invalid-key'],
    ['a body that is not JSON', { body: '{' }, 'undecodable'],
    ['bytes that are not UTF-8', { body: new Uint8Array([0xff]) }, 'undecodable'],
  ])('%s: dead-lettered without the handler or the store', async (_, part, reason) => {
    const { receiver, faults } = stand(() => expect.fail('the handler ran'));
    const bad = { message: { id: '1', body: '{}', headers: { id: 'a' }, ...part } };
    expect(actions(await receiver.process([bad, bad]))).toEqual([`dead-letter ${reason}`, `dead-letter ${reason}`]);
    expect(faults.calls).toEqual([]);
  });

  it('does not harm its neighbours', async () => {
    const { receiver } = stand(() => {});
    const bad = { message: { id: '1', body: '{}', headers: {} } };
    expect(actions(await receiver.process([delivery('a'), bad, delivery('b')]))).toEqual([
      'ack completed',
      'dead-letter invalid-key',
      'ack completed',
    ]);
  });
});

describe('failures', () => {
  it('is tried again after a time that is one, however often it has failed', async () => {
    const { receiver } = stand(
      () => {
        throw new Error('not yet');
      },
      { backoff: { firstMs: 0 }, maxAttempts: Number.POSITIVE_INFINITY },
    );
    const delays = new Set<number>();
    for (let i = 0; i < 1_030; i++)
      for (const verdict of await receiver.process([delivery('a')])) if (verdict.action === 'retry') delays.add(verdict.afterMs);
    expect([...delays]).toEqual([0]);
  });

  it('back off exponentially, with less up to a half by chance, and run again', async () => {
    const { receiver } = stand(
      (_, { attempt }) => {
        if (attempt < 5) throw new Error('not yet');
      },
      { backoff: { firstMs: 1_000, maxMs: 4_000 } },
    );
    for (const [least, most] of [
      [500, 1_000],
      [1_000, 2_000],
      [2_000, 4_000],
      [2_000, 4_000],
    ] as const) {
      const [verdict] = await receiver.process([delivery('a')]);
      expect(verdict).toMatchObject({ action: 'retry', reason: 'failed', error: new Error('not yet') });
      expect((verdict as { afterMs: number }).afterMs).toBeGreaterThanOrEqual(least);
      expect((verdict as { afterMs: number }).afterMs).toBeLessThanOrEqual(most);
    }
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
  });

  it('with RetryAfter come back when it says', async () => {
    const { receiver } = stand(() => {
      throw new RetryAfter(12_345);
    });
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'retry', afterMs: 12_345 }]);
  });

  it('with TerminalError are parked at once, keep their reason, and stay parked', async () => {
    let runs = 0;
    const { receiver, store } = stand(() => {
      runs++;
      throw new TerminalError('account closed');
    });
    expect(await receiver.process([delivery('a', { messageId: 'from the broker' })])).toMatchObject([
      { action: 'dead-letter', reason: 'terminal', detail: 'TerminalError: account closed', attempts: 1 },
    ]);
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['dead-letter terminal']);
    expect(runs).toBe(1);
    const admin = store as ReturnType<typeof memoryStore>;
    expect(await admin.listParked({ limit: 10 })).toMatchObject([
      { reason: 'terminal', detail: 'TerminalError: account closed', label: 'test a' },
    ]);
    await admin.replay(receiver.keyOf(delivery('a').message));
    await receiver.process([delivery('a')]);
    expect(runs).toBe(2);
  });

  it('are parked after maxAttempts', async () => {
    const { receiver } = stand(
      () => {
        throw new Error('always');
      },
      { maxAttempts: 3 },
    );
    const seen: string[] = [];
    for (let i = 0; i < 4; i++) seen.push(...actions(await receiver.process([delivery('a')])));
    expect(seen).toEqual(['retry failed', 'retry failed', 'dead-letter max-attempts', 'dead-letter max-attempts']);
  });

  it('of the schema park the message, naming the place and not the payload', async () => {
    const schema = {
      '~standard': { version: 1, vendor: 'test', validate: () => ({ issues: [{ message: 'too small', path: ['amount'] }] }) },
    };
    const { receiver } = stand(() => expect.fail('the handler ran'), { schema });
    expect(await receiver.process([delivery('a', { payload: { amount: -1 } })])).toMatchObject([
      { action: 'dead-letter', reason: 'invalid-payload', detail: expect.stringContaining('amount: too small') },
    ]);
  });

  it('of the schema come after the look into the store: a completed message is acked even if the schema has changed', async () => {
    const one = stand(() => {});
    await one.receiver.process([delivery('a')]);
    const schema = { '~standard': { version: 1, vendor: 'test', validate: () => ({ issues: [{ message: 'no' }] }) } };
    const two = stand(() => {}, { schema }, one);
    expect(actions(await two.receiver.process([delivery('a')]))).toEqual(['ack duplicate']);
  });

  it('to encode the result park the message: it has taken effect, and must not run again', async () => {
    let runs = 0;
    const { receiver } = stand(
      () => {
        runs++;
        return 10n;
      },
      { results: true },
    );
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['dead-letter unencodable-result']);
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['dead-letter unencodable-result']);
    expect(runs).toBe(1);
  });
});

describe('a process that dies', () => {
  /** A process that claims and is never heard of again. */
  let seed = 100;
  const dying = async (shared: ReturnType<typeof stand>, ...ids: string[]) => {
    const died = stand(() => new Promise(() => {}), {}, { world: virtualWorld({ seed: seed++ }), store: shared.store });
    void died.receiver.process(ids.map((id) => delivery(id)));
    await shared.world.settle();
  };

  it('blocks its message no longer than its lease', async () => {
    const alive = stand(() => {});
    await dying(alive, 'a');
    await alive.world.advance(29_999);
    expect(actions(await alive.receiver.process([delivery('a')]))).toEqual(['retry busy']);
    await alive.world.advance(1);
    expect(actions(await alive.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(alive.told.find(([name]) => name === 'claimed')?.[1]).toMatchObject({ attempt: 2, orphaned: true });
  });

  it('is counted: a message that kills its process is parked after maxAttempts', async () => {
    const alive = stand(() => expect.fail('the handler ran'), { maxAttempts: 2 });
    for (let i = 0; i < 2; i++) {
      await dying(alive, 'a');
      await alive.world.advance(30_000);
    }
    expect(await alive.receiver.process([delivery('a')])).toMatchObject([{ action: 'dead-letter', reason: 'max-attempts', attempts: 2 }]);
  });

  it('is not counted against neighbours more than once: orphans run one by one', async () => {
    const attempts: Record<string, number[]> = {};
    let atOnce = 0;
    let most = 0;
    const alive = stand(async (payload, ctx) => {
      (attempts[payload.id] ??= []).push(ctx.attempt);
      most = Math.max(most, ++atOnce);
      await Promise.resolve();
      atOnce--;
    });
    await dying(alive, 'a', 'b', 'c');
    await alive.world.advance(30_000);
    // While one orphan runs, the others are not claimed, so that its death would not be counted against them.
    const claimed: number[] = [];
    const verdicts = await alive.receiver.process([delivery('a'), delivery('b'), delivery('c')], {
      settled: async () => claimed.push((await (alive.store as ReturnType<typeof memoryStore>).stats()).claimed),
    });
    expect(actions(verdicts)).toEqual(['ack completed', 'ack completed', 'ack completed']);
    expect(attempts).toEqual({ a: [2], b: [2], c: [2] });
    expect(alive.told.flatMap(([name, event]) => (name === 'claimed' ? [event.orphaned] : []))).toEqual([true, true, true]);
    expect(most).toBe(1);
    expect(Math.max(...claimed)).toBeLessThanOrEqual(1);
  });
});

describe('a stalled worker', () => {
  it('that lost its claim records nothing, acks nothing, and its result is not given out', async () => {
    const store = memoryStore({ now: () => clock.world.clock.now() });
    const clock = stand(() => 'new owner', { results: true }, { world: virtualWorld(), store });
    // The zombie's own world stands still, like a process under SIGSTOP.
    const gate = latch<string>();
    const zombie = stand(() => gate.promise, { results: true }, { world: virtualWorld({ seed: 2 }), store });
    const zombieVerdicts = watch(zombie.receiver.process([delivery('a')]));
    await clock.world.advance(30_000);
    expect(await clock.receiver.process([delivery('a')])).toEqual([{ action: 'ack', outcome: 'completed', result: 'new owner' }]);
    gate.open('zombie');
    await clock.world.settle();
    expect(zombieVerdicts.value).toMatchObject([{ action: 'retry', reason: 'fenced' }]);
    expect(zombie.names()).toContain('fenced');
    const third = stand(() => 'never', { results: true }, clock);
    expect(await third.receiver.process([delivery('a')])).toEqual([{ action: 'ack', outcome: 'duplicate', result: 'new owner' }]);
  });

  it('that lost its claim and fails does not release the claim of the new owner', async () => {
    const gate = latch<string>();
    const newOwner = latch<string>();
    const alive = stand(() => newOwner.promise);
    const zombie = stand(() => gate.promise, {}, { world: virtualWorld({ seed: 2 }), store: alive.store });
    const zombieVerdicts = watch(zombie.receiver.process([delivery('a')]));
    await alive.world.advance(30_000);
    const running = watch(alive.receiver.process([delivery('a')]));
    await alive.world.settle();
    gate.fail(new Error('late'));
    await alive.world.settle();
    expect(actions(zombieVerdicts.value!)).toEqual(['retry fenced']);
    expect(actions(await stand(() => 'never', {}, alive).receiver.process([delivery('a')]))).toEqual(['retry busy']);
    newOwner.open('done');
    await alive.world.settle();
    expect(actions(running.value!)).toEqual(['ack completed']);
  });

  it('whose lease ended while it waited for its turn does not start the handler', async () => {
    const gate = latch();
    const started: string[] = [];
    const { receiver, world, faults } = stand(
      async (payload) => {
        started.push(payload.id);
        await gate.promise;
      },
      { concurrency: 1 },
    );
    const result = watch(receiver.process([delivery('a'), delivery('b')]));
    await world.settle();
    faults.broken.extend = 'before';
    await world.advance(30_500);
    gate.open();
    await world.settle();
    expect(started).toEqual(['a']);
    // Nobody has taken "a" over, so its token is still current and its outcome counts.
    expect(actions(result.value!)).toEqual(['ack completed', 'retry expired']);
  });

  it('that keeps its lease alive keeps it as long as it runs', async () => {
    const gate = latch();
    const one = stand(() => gate.promise);
    const result = watch(one.receiver.process([delivery('a')]));
    await one.world.advance(200_000);
    const two = stand(() => 'never', {}, one);
    expect(actions(await two.receiver.process([delivery('a')]))).toEqual(['retry busy']);
    gate.open();
    await one.world.settle();
    expect(actions(result.value!)).toEqual(['ack completed']);
    expect(one.world.timers).toBe(0);
  });
});

describe('whatever a handler throws', () => {
  it.each([
    ['undefined', undefined],
    ['null', null],
    ['text', 'no'],
    ['NaN', Number.NaN],
    // biome-ignore lint/suspicious/noThenProperty: the danger of thenables is what is tested
    ['a thenable', { then: (resolve: (value: number) => void) => resolve(1) }],
    ['an object without a prototype', Object.create(null)],
    ['a symbol', Symbol('no')],
    ['a revoked proxy', revoked()],
  ])('is a failure of its message, counted and given back: %s', async (_, thrown) => {
    const { receiver, store } = stand(() => {
      throw thrown;
    });
    expect(actions(await receiver.process([delivery('a'), delivery('b')]))).toEqual(['retry failed', 'retry failed']);
    expect(await (store as ReturnType<typeof memoryStore>).stats()).toMatchObject({ claimed: 0, released: 2 });
  });

  function revoked(): unknown {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  }
});

describe('the guarantee `fenced`', () => {
  it('lets its resource refuse a stalled worker, whose fence is smaller', async () => {
    const resource = { fence: 0, writes: [] as string[] };
    const write = (who: string, fence: number) => {
      if (fence < resource.fence) throw new Error('refused');
      resource.fence = fence;
      resource.writes.push(who);
    };
    const stalled = latch();
    const world = virtualWorld();
    const store = memoryStore({ now: world.clock.now });
    // The zombie's own world stands still, like a process under SIGSTOP; the store's time goes on.
    const zombie = stand(
      async (_, { fence }) => {
        await stalled.promise;
        write('zombie', fence);
      },
      { guarantee: 'fenced' },
      { world: virtualWorld({ seed: 2 }), store },
    );
    const late = watch(zombie.receiver.process([delivery('a')]));
    await world.settle();
    await world.advance(30_000);
    const owner = stand((_, { fence }) => write('owner', fence), { guarantee: 'fenced' }, { world, store });
    expect(actions(await owner.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    stalled.open();
    await world.settle();
    expect(actions(late.value!)).toEqual(['retry fenced']);
    expect(resource.writes).toEqual(['owner']);
  });
});

describe('a handler that runs too long', () => {
  it('has not begun while its schema hangs, and is given up all the same', async () => {
    const schema = { '~standard': { version: 1, vendor: 'test', validate: () => new Promise(() => {}) } };
    const { receiver, world } = stand(() => expect.fail('the handler ran'), { schema, handlerTimeoutMs: 60_000 });
    const result = watch(receiver.process([delivery('a')]));
    await world.advance(61_000);
    expect(actions(result.value!)).toEqual(['retry timeout']);
    expect(world.timers).toBe(0);
  });

  it('has its signal aborted, and what it throws then is a timeout', async () => {
    const { receiver, world } = stand(
      (_, { signal }) => new Promise((__, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
      { handlerTimeoutMs: 60_000 },
    );
    const result = watch(receiver.process([delivery('a')]));
    await world.advance(60_000);
    expect(actions(result.value!)).toEqual(['retry timeout']);
    expect(result.value).toMatchObject([{ error: { code: 'handler-timeout' } }]);
  });

  it('and ignores its signal is given up; nobody else starts before its lease has ended', async () => {
    const one = stand(() => new Promise(() => {}), { handlerTimeoutMs: 60_000 });
    const result = watch(one.receiver.process([delivery('a')]));
    await one.world.advance(61_000);
    expect(actions(result.value!)).toEqual(['retry timeout']);
    const two = stand(() => {}, {}, one);
    expect(actions(await two.receiver.process([delivery('a')]))).toEqual(['retry busy']);
    await one.world.advance((result.value![0] as { afterMs: number }).afterMs);
    expect(actions(await two.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(one.world.timers).toBe(0);
  });

  it('and ends after it was given up is still recorded, if nobody has taken over', async () => {
    const gate = latch();
    const one = stand(() => gate.promise, { handlerTimeoutMs: 60_000 });
    const result = watch(one.receiver.process([delivery('a')]));
    await one.world.advance(61_000);
    expect(result.done).toBe(true);
    gate.open();
    await one.world.settle();
    expect(actions(await stand(() => 'never', {}, one).receiver.process([delivery('a')]))).toEqual(['ack duplicate']);
  });
});

describe('order', () => {
  it('is kept within an ordering key, while other keys run beside it', async () => {
    const log: string[] = [];
    const gates: Record<string, ReturnType<typeof latch<void>>> = { a1: latch(), b1: latch() };
    const { receiver, world } = stand(async ({ id }) => {
      log.push(id);
      await gates[id]?.promise;
    });
    const keyed = (id: string) => delivery(id, { orderingKey: id[0]! });
    const result = watch(receiver.process([keyed('a1'), keyed('a2'), keyed('b1'), keyed('b2')]));
    await world.settle();
    expect(log).toEqual(['a1', 'b1']);
    gates['b1']!.open();
    await world.settle();
    expect(log).toEqual(['a1', 'b1', 'b2']);
    gates['a1']!.open();
    await world.settle();
    expect(log).toEqual(['a1', 'b1', 'b2', 'a2']);
    expect(result.done).toBe(true);
  });

  it('the first failure stops its own key only, and what it stops is not counted as an attempt', async () => {
    let fail = true;
    const attempts: string[] = [];
    const { receiver } = stand(({ id }, { attempt }) => {
      attempts.push(`${id}:${attempt}`);
      if (id === 'a2' && fail) throw new Error('no');
    });
    const batch = ['a1', 'a2', 'a3', 'b1'].map((id) => delivery(id, { orderingKey: id[0]! }));
    const verdicts = await receiver.process(batch);
    expect(actions(verdicts)).toEqual(['ack completed', 'retry failed', 'retry order', 'ack completed']);
    expect((verdicts[2] as { afterMs: number }).afterMs).toBe((verdicts[1] as { afterMs: number }).afterMs);
    fail = false;
    expect(actions(await receiver.process(batch))).toEqual(['ack duplicate', 'ack completed', 'ack completed', 'ack duplicate']);
    expect(attempts.sort()).toEqual(['a1:1', 'a2:1', 'a2:2', 'a3:1', 'b1:1']);
  });

  it('nothing later in a key is acked past a failure, not even a duplicate of a completed message', async () => {
    const { receiver } = stand(({ id }) => {
      if (id === 'bad') throw new Error('no');
    });
    await receiver.process([delivery('done')]);
    const batch = [delivery('bad', { orderingKey: 'k' }), delivery('done', { orderingKey: 'k' })];
    expect(actions(await receiver.process(batch))).toEqual(['retry failed', 'retry order']);
  });

  it('a busy message stops its key too; a dead-lettered one does not', async () => {
    const one = stand(() => new Promise(() => {}));
    void one.receiver.process([delivery('busy')]);
    await one.world.settle();
    const two = stand(
      ({ id }) => {
        if (id === 'bad') throw new TerminalError('no');
      },
      {},
      one,
    );
    const keyed = (id: string) => delivery(id, { orderingKey: 'k' });
    expect(actions(await two.receiver.process([keyed('bad'), keyed('x'), keyed('busy'), keyed('y')]))).toEqual([
      'dead-letter terminal',
      'ack completed',
      'retry busy',
      'retry order',
    ]);
  });

  it('no more than `concurrency` handlers run at once, over all calls', async () => {
    let now = 0;
    let most = 0;
    const { receiver, world } = stand(
      async () => {
        most = Math.max(most, ++now);
        await Promise.resolve();
        now--;
      },
      { concurrency: 3 },
    );
    const all = watch(Promise.all([0, 1, 2].map((n) => receiver.process([0, 1, 2, 3].map((i) => delivery(`${n}-${i}`))))));
    await world.settle();
    expect(all.done).toBe(true);
    expect(most).toBe(3);
  });
});

describe('a message older than the memory', () => {
  const day = 86_400_000;

  it('is not taken for new', async () => {
    const { receiver, world } = stand(() => expect.fail('the handler ran'), { retentionMs: day });
    const old = delivery('a', { sentAtMs: world.clock.wall() - day - 1 });
    expect(actions(await receiver.process([old]))).toEqual(['dead-letter too-old']);
  });

  it('that is still remembered is a duplicate like any other', async () => {
    const { receiver, world } = stand(() => {}, { retentionMs: day });
    await receiver.process([delivery('a')]);
    expect(actions(await receiver.process([delivery('a', { sentAtMs: world.clock.wall() - 2 * day })]))).toEqual(['ack duplicate']);
  });

  it('runs where onTooOld says so, or at exactly the limit', async () => {
    const { receiver, world } = stand(() => {}, { retentionMs: day, onTooOld: 'process' });
    expect(actions(await receiver.process([delivery('a', { sentAtMs: world.clock.wall() - 2 * day })]))).toEqual(['ack completed']);
    const strict = stand(() => {}, { retentionMs: day });
    expect(actions(await strict.receiver.process([delivery('a', { sentAtMs: strict.world.clock.wall() - day })]))).toEqual([
      'ack completed',
    ]);
  });

  it('the horizon of the broker must not be longer than the retention', () => {
    const { receiver } = stand(() => {}, { retentionMs: day });
    receiver.requireRetention(day, 'equal is enough');
    expect(() => receiver.requireRetention(day + 1, 'MessageRetentionPeriod of orders')).toThrow(
      'Expected `retentionMs` to be at least 86400001 (MessageRetentionPeriod of orders), got `86400000`',
    );
  });
});

describe('purging', () => {
  it('that hangs does not keep the receiver from stopping', async () => {
    const { receiver, world, faults } = stand(() => {}, { purgeEveryMs: 1_000, storeTimeoutMs: 2_000 });
    faults.broken.purge = 'hang';
    await world.advance(1_000);
    await receiver.process([delivery('a')]);
    const stopped = watch(receiver.stop());
    await world.advance(2_000);
    expect(stopped.value).toEqual({ abandoned: 0 });
    expect(world.timers).toBe(0);
  });

  it('rides on other work, in batches, and leaves no timer', async () => {
    const { receiver, world, faults, store } = stand(() => {}, { retentionMs: 60_000, purgeEveryMs: 60_000, leaseMs: 1_000 });
    await receiver.process(Array.from({ length: 1_200 }, (_, i) => delivery(`m${i}`)));
    await world.advance(60_000);
    await receiver.process([delivery('later')]);
    await world.settle();
    expect(faults.calls.filter(({ verb }) => verb === 'purge')).toHaveLength(3);
    expect(await (store as ReturnType<typeof memoryStore>).stats()).toMatchObject({ completed: 1 });
    expect(world.timers).toBe(0);
  });
});
