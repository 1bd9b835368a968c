import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { jsonCodec, ReceiverError } from '../src/index.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

const code = (of: string, text: string) => expect.objectContaining({ code: of, message: expect.stringContaining(text) });

describe('what a receiver is called with', () => {
  it('is an array of deliveries', () => {
    const { receiver } = stand(() => {});
    expect(() => receiver.process(delivery('a') as never)).toThrow(code('invalid-option', 'Expected `deliveries` to be an array'));
  });

  it('is an array of deliveries, and not of messages: what is wrong is the call, so nothing is given up as poison', () => {
    const { receiver } = stand(() => {});
    const { message } = delivery('a');
    for (const wrong of [message, null, undefined, 'a', {}, { message: null }, { message: 'a' }, { message: { id: 'a', body: '{}' } }]) {
      expect(() => receiver.process([delivery('a'), wrong as never])).toThrow(
        code('invalid-option', 'Expected `deliveries[1]` to be `{ message: { id, body, headers } }`, got'),
      );
    }
  });

  it('is a horizon that fits its retention', () => {
    const { receiver } = stand(() => {}, { retentionMs: 60_000 });
    receiver.requireRetention(60_000, 'the queue');
    expect(() => receiver.requireRetention(60_001, 'the queue')).toThrow(
      code('retention-too-short', 'Expected `retentionMs` to be at least 60001 (the queue), got `60000`'),
    );
  });

  it('is a grace that is a number', () => {
    const { receiver } = stand(() => {});
    expect(() => receiver.stop({ graceMs: -1 })).toThrow(code('invalid-option', 'Expected `graceMs` to be'));
  });

  it('is a world with all that it needs', () => {
    const { world } = stand(() => {});
    const broken = (part: object) => () => stand(() => {}, { world: { ...world, ...part } });
    expect(broken({ clock: { ...world.clock, wall: undefined } })).toThrow(code('invalid-option', 'Expected `world.clock` to be'));
    expect(broken({ random: { number: () => 0 } })).toThrow(code('invalid-option', 'Expected `world.random` to be'));
  });
});

describe('a receiver that nobody uses', () => {
  it('stops without any time passing', async () => {
    const { receiver, world } = stand(() => {});
    await receiver.process([delivery('a')]);
    const stopped = watch(receiver.stop({ graceMs: 60_000 }));
    await world.settle();
    expect(stopped.value).toEqual({ abandoned: 0 });
  });
});

describe('who waits until the store answers again', () => {
  it('is let go when its own signal is aborted, and leaves no timer and no listener', async () => {
    const { receiver, world, faults } = stand(() => {});
    faults.broken.claim = 'before';
    await receiver.process([delivery('a')]);
    const [one, other] = [new AbortController(), new AbortController()];
    const waiting = [watch(receiver.ready(one.signal)), watch(receiver.ready(other.signal))];
    await world.settle();
    one.abort();
    await world.settle();
    expect(waiting.map(({ value }) => value)).toEqual([false, undefined]);
    await world.advance(100);
    expect(waiting.map(({ value }) => value)).toEqual([false, true]);
    expect(getEventListeners(other.signal, 'abort')).toEqual([]);
    expect(world.timers).toBe(0);
  });

  it('does not wait at all with a signal that is aborted already', async () => {
    const { receiver } = stand(() => {});
    expect(await receiver.ready(AbortSignal.abort())).toBe(false);
    expect(await receiver.ready(new AbortController().signal)).toBe(true);
  });
});

describe('expired records', () => {
  it('are purged no more often than `purgeEveryMs`', async () => {
    const { receiver, world, faults } = stand(() => {}, { purgeEveryMs: 60_000 });
    const purges = () => faults.calls.filter(({ verb }) => verb === 'purge').length;
    for (let i = 0; i < 13; i++) {
      await world.advance(10_000);
      await receiver.process([delivery(`m${i}`)]);
      await world.settle();
    }
    expect(purges()).toBe(2);
  });
});

describe('a handler that calls its own receiver', () => {
  it('with its own message among others is refused, and nothing of the call is done', async () => {
    const errors: ReceiverError[] = [];
    const made: ReturnType<typeof stand> = stand(
      async ({ id }) => {
        if (id !== 'a') expect.fail('the handler ran');
        await made.receiver.process([delivery('b'), delivery('a')]).catch((error) => errors.push(error));
      },
      { concurrency: Number.POSITIVE_INFINITY },
    );
    expect(actions(await made.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(errors).toEqual([code('nested', 'A handler of "test" called its own receiver and would wait for itself')]);
  });
});

describe('a handler that calls its own receiver with nothing', () => {
  it('waits for nothing', async () => {
    const verdicts: unknown[] = [];
    const made: ReturnType<typeof stand> = stand(async () => void verdicts.push(await made.receiver.process([])));
    expect(actions(await made.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(verdicts).toEqual([[]]);
  });
});

describe('a signal that is aborted because the receiver stops', () => {
  it('says so, and for how long it has waited', async () => {
    const reasons: unknown[] = [];
    const { receiver, world } = stand((_, { signal }) => {
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          reasons.push(signal.reason);
          reject(signal.reason);
        });
      });
    });
    void receiver.process([delivery('a')]);
    await world.settle();
    void receiver.stop({ graceMs: 4_000 });
    await world.advance(4_000);
    expect(reasons).toEqual([code('stopped', 'The receiver stopped, and the handler has not returned within 4000 ms')]);
  });
});

describe('copies in one batch', () => {
  it('follow the first of their ordering key, whatever comes in between', async () => {
    const { receiver } = stand(() => {});
    const copies = ['k1', 'k2', 'k1'].map((orderingKey) => delivery('a', { orderingKey }));
    expect(actions(await receiver.process(copies))).toEqual(['ack completed', 'retry busy', 'ack duplicate']);
  });
});

describe('a handler that gives a function which is a promise too', () => {
  it('is waited for', async () => {
    const gate = latch();
    // biome-ignore lint/suspicious/noThenProperty: the danger of thenables is what is tested
    const query = Object.assign(() => {}, { then: gate.promise.then.bind(gate.promise) });
    const { receiver, world } = stand(() => query);
    const running = watch(receiver.process([delivery('a')]));
    await world.settle();
    expect(running.done).toBe(false);
    gate.fail(new Error('no'));
    await world.settle();
    expect(actions(running.value!)).toEqual(['retry failed']);
  });
});

describe('a message that can’t be read', () => {
  it('is undecodable also if the decoder throws an error of ours', async () => {
    const { receiver } = stand(() => {}, {
      decode: () => {
        throw new ReceiverError('codec', 'the key of this message is gone');
      },
    });
    expect(await receiver.process([delivery('a')])).toMatchObject([
      { action: 'dead-letter', reason: 'undecodable', detail: 'ReceiverError: the key of this message is gone' },
    ]);
  });

  it('stands alone: others that can’t be read are not copies of it', async () => {
    const seen: string[] = [];
    const { receiver } = stand(() => {});
    const bad = (id: string) => ({ message: { id, body: '{', headers: {} } });
    const verdicts = await receiver.process([bad('1'), bad('2'), delivery('a')], {
      settled: ({ message }, verdict) => seen.push(`${message.id} ${actions([verdict])[0]}`),
    });
    expect(actions(verdicts)).toEqual(['dead-letter undecodable', 'dead-letter undecodable', 'ack completed']);
    expect(seen.sort()).toEqual(['1 dead-letter undecodable', '2 dead-letter undecodable', 'a ack completed']);
  });

  it('for its key strategy says why is refused in those words', async () => {
    const { receiver } = stand(() => {}, {
      key: () => {
        throw new ReceiverError('invalid-key', 'Expected an order number, got none');
      },
    });
    expect(await receiver.process([delivery('a')])).toMatchObject([
      { reason: 'invalid-key', detail: 'ReceiverError: Expected an order number, got none' },
    ]);
  });
});

describe('whatever a handler throws', () => {
  it('and can’t even be looked at is a failure like any other, with a cause', async () => {
    const { receiver } = stand(() => {
      const { proxy, revoke } = Proxy.revocable({}, {});
      revoke();
      throw proxy;
    });
    const [verdict] = await receiver.process([delivery('a')]);
    expect(verdict).toMatchObject({ action: 'retry', reason: 'failed' });
    const { error } = verdict as { error: Error };
    expect(error.message).toBe('Something was thrown that cannot be looked at');
    expect(error.cause).toBeInstanceOf(TypeError);
  });
});

describe('claims of workers that have died, given back to be taken one by one', () => {
  it('may wait for longer than a lease', async () => {
    const gate = latch();
    const { receiver, world, store } = stand(({ id }) => (id === 'a' ? gate.promise : undefined), { leaseMs: 3_000 });
    for (const id of ['a', 'b']) {
      const key = receiver.keyOf(delivery(id).message);
      await store.claim([{ key, fingerprint: '', token: id, leaseMs: 100, retainMs: 100_000 }]);
    }
    await world.advance(100);
    const running = watch(receiver.process([delivery('a'), delivery('b')]));
    await world.advance(20_000);
    gate.open();
    await world.settle();
    expect(actions(running.value!)).toEqual(['ack completed', 'ack completed']);
  });
});

describe('a store with transactions, of which only leases are asked for', () => {
  it('is used as any other', async () => {
    const { store, world, faults } = stand(() => {});
    const units = { ...faults.store, unit: () => expect.fail('a transaction was opened') };
    const { receiver } = stand(
      (_, context) => expect('tx' in context).toBe(false),
      { store: units, guarantee: 'leased' },
      { world, store },
    );
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(faults.calls.map(({ verb }) => verb)).toEqual(['claim', 'settle']);
  });
});

describe('results', () => {
  it('of a codec of your own come back through it', async () => {
    const codec = { encode: (value: unknown) => `!${jsonCodec.encode(value)}`, decode: (text: string) => jsonCodec.decode(text.slice(1)) };
    const { receiver } = stand(() => ({ paid: true }), { codec, results: true, cacheSize: 0 });
    await receiver.process([delivery('a')]);
    expect(await receiver.process([delivery('a')])).toEqual([{ action: 'ack', outcome: 'duplicate', result: { paid: true } }]);
  });
});
