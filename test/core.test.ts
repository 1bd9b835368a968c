import { AsyncResource } from 'node:async_hooks';
import { describe, expect, it } from 'vitest';
import { ReceiverError, type ReceiverEvents, type Verdict } from '../src/index.ts';
import type { Answer, DedupStore } from '../src/store.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

type Stand = ReturnType<typeof stand>;

/** The events of one name, without what all events of a message have in common. */
function told<Name extends keyof ReceiverEvents>(of: Stand, name: Name): Omit<ReceiverEvents[Name], 'message' | 'key'>[] {
  return of.told.flatMap(([each, event]) => {
    if (each !== name) return [];
    const { scope, message: _message, key: _key, ...details } = event as ReceiverEvents['received'];
    expect(scope).toBe('test');
    return [details as never];
  });
}

describe('what is told of a message', () => {
  it('that completes: the attempt, and how long its handler took', async () => {
    const gate = latch();
    const one = stand(() => gate.promise);
    await one.world.advance(1_000);
    const running = watch(one.receiver.process([delivery('a')]));
    await one.world.advance(3_000);
    gate.open();
    await one.world.settle();
    expect(running.done).toBe(true);
    expect(told(one, 'claimed')).toEqual([{ attempt: 1, orphaned: false }]);
    expect(told(one, 'completed')).toEqual([{ attempt: 1, durationMs: 3_000 }]);
  });

  it('that was handled before: how long ago, also where this process knows it by itself', async () => {
    const one = stand(() => {});
    const two = stand(() => {}, {}, one);
    await one.world.advance(1_000);
    await one.receiver.process([delivery('a'), delivery('a')]);
    expect(told(one, 'duplicate')).toEqual([{ kind: 'batch', ageMs: 0 }]);
    await one.world.advance(5_000);
    await one.receiver.process([delivery('a')]);
    await two.receiver.process([delivery('a')]);
    await one.world.advance(2_000);
    await two.receiver.process([delivery('a')]);
    expect(told(one, 'duplicate').slice(1)).toEqual([{ kind: 'completed', ageMs: 5_000 }]);
    expect(told(two, 'duplicate')).toEqual([
      { kind: 'completed', ageMs: 5_000 },
      { kind: 'completed', ageMs: 7_000 },
    ]);
    // The second time the answer of the store was remembered.
    expect(two.faults.calls.map(({ verb }) => verb)).toEqual(['claim']);
  });

  it('that another worker runs: what is left of its lease', async () => {
    const one = stand(() => new Promise(() => {}));
    const two = stand(() => {}, {}, one);
    void one.receiver.process([delivery('a')]);
    await one.world.advance(4_000);
    await two.receiver.process([delivery('a')]);
    expect(told(two, 'busy')).toEqual([{ remainingMs: 26_000 }]);
  });

  it('that is to be tried again: why, when, which attempt it was, and the error', async () => {
    const error = new Error('not yet');
    const one = stand(() => {
      throw error;
    });
    const verdicts = await one.receiver.process([delivery('a1', { orderingKey: 'a' }), delivery('a2', { orderingKey: 'a' })]);
    const afterMs = (verdicts[0] as { afterMs: number }).afterMs;
    expect(told(one, 'released')).toEqual([
      { reason: 'failed', afterMs, attempt: 1, error },
      { reason: 'order', afterMs, attempt: 0, error: undefined },
    ]);
  });

  it('that is given up: why, in words, and after how many attempts', async () => {
    const one = stand(
      () => {
        throw new Error('no');
      },
      { maxAttempts: 1 },
    );
    const verdicts = await one.receiver.process([delivery('a'), { message: { id: 'm', body: '{}', headers: {} } }]);
    expect(verdicts).toMatchObject([
      { action: 'dead-letter', reason: 'max-attempts', detail: 'Error: no', attempts: 1 },
      { action: 'dead-letter', reason: 'invalid-key', attempts: 0 },
    ]);
    expect(told(one, 'parked')).toMatchObject([
      { reason: 'invalid-key', detail: (verdicts[1] as { detail: string }).detail, attempts: 0 },
      { reason: 'max-attempts', detail: 'Error: no', attempts: 1 },
    ]);
  });

  it('that lost its claim while its handler ran: the attempt; it comes back when the new owner may have ended', async () => {
    const gate = latch();
    const one = stand(() => gate.promise, { leaseMs: 3_000 });
    const two = stand(() => new Promise(() => {}), { leaseMs: 3_000 }, one);
    one.faults.broken.extend = 'before';
    const running = watch(one.receiver.process([delivery('a')]));
    await one.world.advance(3_000);
    void two.receiver.process([delivery('a')]);
    await one.world.settle();
    gate.open();
    await one.world.advance(1);
    expect(told(two, 'claimed')).toEqual([{ attempt: 2, orphaned: true }]);
    expect(running.value).toEqual([{ action: 'retry', reason: 'fenced', afterMs: 1_500 }]);
    expect(told(one, 'fenced')).toEqual([{ attempt: 1 }]);
  });
});

describe('the words of a verdict', () => {
  const textOf = (verdict: Verdict | undefined) => (verdict as { detail: string }).detail;

  it('tell how old a message is, and how long messages are remembered', async () => {
    const { receiver, world } = stand(() => {}, { retentionMs: 3_600_000 });
    const [verdict] = await receiver.process([delivery('a', { sentAtMs: world.clock.wall() - 7_200_000 })]);
    expect(textOf(verdict)).toBe('Sent 7200 s ago, but messages are remembered for 3600 s');
  });

  it('tell how often a process has died of a message', async () => {
    const { receiver, store } = stand(() => {}, { maxAttempts: 2 });
    const key = receiver.keyOf(delivery('a').message);
    for (const token of ['1', '2', '3']) {
      await store.claim([{ key, fingerprint: '', token, leaseMs: 1_000, retainMs: 10_000 }]);
      await store.settle([{ key, token, retainMs: 10_000, as: 'released', counted: token !== '3' }]);
    }
    const [verdict] = await receiver.process([delivery('a')]);
    expect(verdict).toMatchObject({ reason: 'max-attempts', attempts: 2 });
    expect(textOf(verdict)).toBe('2 attempts were started, and the last of them never ended');
  });

  it('tell that the key was seen with another payload', async () => {
    const { receiver } = stand(() => {});
    await receiver.process([delivery('a')]);
    const [verdict] = await receiver.process([delivery('a', { payload: { id: 'a', other: true } })]);
    expect(textOf(verdict)).toBe('A message with this key and another payload has been received before');
  });
});

describe('what the store answers', () => {
  it('when it can’t be read is an error that says what came', async () => {
    const answer: Answer = { state: 'corrupt', detail: 'not JSON' };
    const { receiver } = answering(answer);
    const [verdict] = await receiver.process([delivery('a')]);
    expect(verdict).toMatchObject({ action: 'retry', reason: 'store' });
    const { error } = verdict as { error: ReceiverError };
    expect(error).toBeInstanceOf(ReceiverError);
    expect([error.code, error.message]).toEqual(['store', `The record can't be read: ${JSON.stringify(answer)}`]);
  });

  it('as a result that can’t be decoded is an error of the codec, with its cause', async () => {
    const { receiver } = answering({ state: 'completed', result: 'no JSON', ageMs: 0 }, { results: true });
    const { error } = (await receiver.process([delivery('a')]))[0] as { error: ReceiverError };
    expect([error.code, error.message]).toEqual(['codec', expect.stringContaining("can't be decoded")]);
    expect(error.cause).toBeInstanceOf(SyntaxError);
  });

  it('as a result where results are off is not even decoded', async () => {
    const { receiver } = answering({ state: 'completed', result: 'no JSON', ageMs: 0 });
    expect(await receiver.process([delivery('a')])).toEqual([{ action: 'ack', outcome: 'duplicate', result: undefined }]);
  });

  it('as completed without a result, where results are on, is a duplicate without one', async () => {
    const { receiver } = answering({ state: 'completed', ageMs: 0 }, { results: true });
    expect(await receiver.process([delivery('a')])).toEqual([{ action: 'ack', outcome: 'duplicate', result: undefined }]);
  });

  function answering(answer: Answer, options: Record<string, unknown> = {}) {
    const made = stand(() => {}, options);
    made.faults.store.claim = (async (asks) => asks.map(() => answer)) satisfies DedupStore['claim'];
    return made;
  }
});

describe('a message that is old', () => {
  it('and is remembered as failed is tried again, however old it has become', async () => {
    let runs = 0;
    const { receiver, world } = stand(
      () => {
        if (++runs === 1) throw new Error('not yet');
      },
      { retentionMs: 60_000 },
    );
    const sent = delivery('a', { sentAtMs: world.clock.wall() });
    await world.advance(50_000);
    expect(actions(await receiver.process([sent]))).toEqual(['retry failed']);
    await world.advance(20_000);
    expect(actions(await receiver.process([sent]))).toEqual(['ack completed']);
  });
});

describe('an ending whose reply is lost', () => {
  it('is sent again with pauses of up to two seconds, for one lease', async () => {
    const { receiver, world, faults } = stand(() => {}, { leaseMs: 30_000, storeTimeoutMs: 1_000 });
    faults.broken.settle = 'before';
    const running = watch(receiver.process([delivery('a')]));
    await world.advance(29_000);
    const sent = faults.calls.filter(({ verb }) => verb === 'settle').length;
    expect(sent).toBeGreaterThanOrEqual(18);
    expect(sent).toBeLessThanOrEqual(22);
    await world.advance(2_000);
    expect(actions(running.value!)).toEqual(['retry store']);
    expect(world.timers).toBe(0);
  });
});

describe('a handler', () => {
  it('gets a fence only where it is fenced, and a transaction only where there is one', async () => {
    const names: string[][] = [];
    for (const guarantee of ['leased', 'fenced'] as const) {
      const { receiver } = stand((_, context) => void names.push(['tx' in context, 'fence' in context].map(String)), { guarantee });
      await receiver.process([delivery('a')]);
    }
    expect(names).toEqual([
      ['false', 'false'],
      ['false', 'true'],
    ]);
  });

  it('gets downstream keys that no release of this library may change: an effect is known by them', async () => {
    const keys: string[] = [];
    const { receiver } = stand((_, context) => void keys.push(context.key('charge')));
    await receiver.process([delivery('a')]);
    expect(keys).toEqual(['Vl6jbfZ50j-HQSgQalQ_ZalK_xlyYHVE']);
  });

  it('may return what can’t be encoded where results are off, and it goes to who asked', async () => {
    const { receiver } = stand(() => 7n);
    expect(await receiver.process([delivery('a')])).toEqual([{ action: 'ack', outcome: 'completed', result: 7n }]);
  });

  it('that fails because somebody else is busy comes back when that one may be done', async () => {
    const { receiver } = stand(() => {
      throw new ReceiverError('busy', 'the other one is running', { retryAfterMs: 4_321 });
    });
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'retry', reason: 'failed', afterMs: 4_321 }]);
  });

  it('that fails with an error of ours that names no time backs off like any other', async () => {
    const { receiver } = stand(
      () => {
        throw new ReceiverError('codec', 'no time');
      },
      { backoff: { firstMs: 1_000, maxMs: 8_000 } },
    );
    const [verdict] = await receiver.process([delivery('a')]);
    const { afterMs } = verdict as { afterMs: number };
    expect(afterMs).toBeGreaterThanOrEqual(500);
    expect(afterMs).toBeLessThanOrEqual(1_000);
  });

  it('that uses up its attempts with an error of ours is parked for that, whatever the error is', async () => {
    const { receiver } = stand(
      () => {
        throw new ReceiverError('codec', 'no');
      },
      { maxAttempts: 1 },
    );
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'dead-letter', reason: 'max-attempts' }]);
  });

  it('that has ended has no time limit any more: what it left behind is not aborted', async () => {
    let signal: AbortSignal | undefined;
    const later = latch();
    const { receiver, world } = stand(
      ({ id }, context) => {
        if (id === 'a') ({ signal } = context);
        return id === 'slow' ? later.promise : undefined;
      },
      { handlerTimeoutMs: 5_000 },
    );
    await receiver.process([delivery('a')]);
    void receiver.process([delivery('slow')]);
    await world.advance(4_000);
    expect(signal!.aborted).toBe(false);
    await world.advance(4_000);
    expect(signal!.aborted).toBe(false);
    later.open();
  });

  it('of one receiver may call another receiver', async () => {
    const inner = stand(() => 'inner');
    const outer = stand(async () => actions(await inner.receiver.process([delivery('b')])), { results: true });
    expect(await outer.receiver.process([delivery('a')])).toMatchObject([{ action: 'ack', result: ['ack completed'] }]);
  });

  it('that was bound to the context of another one is still refused while that one runs', async () => {
    const errors: unknown[] = [];
    const { receiver } = stand(async ({ id }) => {
      if (id !== 'a') return;
      const bound = AsyncResource.bind(() => receiver.process([delivery('b')]).catch((error: ReceiverError) => errors.push(error.code)));
      await new Promise((resolve) => setImmediate(resolve));
      await bound();
    });
    await receiver.process([delivery('a')]);
    expect(errors).toEqual(['nested']);
  });
});
