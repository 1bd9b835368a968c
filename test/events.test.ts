import { describe, expect, it } from 'vitest';
import { type EventHooks, emitter, type ReceiverEvents, teller } from '../src/events.ts';
import { actions, delivery, eventNames, stand } from './support/stand.ts';

const event: ReceiverEvents['received'] = { scope: 'test', message: { id: 'm', body: '', headers: {} }, key: undefined };

/** The same hook for every event. */
const everywhere = (hook: () => unknown) => Object.fromEntries(eventNames.map((name) => [name, hook])) as EventHooks;

const throwing = () => {
  throw new Error('the metric is broken');
};
const rejecting = () => Promise.reject(new Error('the metric is broken'));

describe('emit', () => {
  it('gives the event to the hook of its name, and to no other', () => {
    const got: unknown[] = [];
    const emit = emitter({ received: (told) => got.push(told), storeUp: () => got.push('wrong') });
    emit('received', event);
    expect(got).toEqual([event]);
    expect(got[0]).toBe(event);
  });

  it('does nothing where there is no hook', () => {
    expect(() => emitter({})('received', event)).not.toThrow();
  });

  it.each([
    ['throws', throwing],
    ['rejects', rejecting],
  ])('goes on if a hook %s', async (_, hook) => {
    const unhandled: unknown[] = [];
    const listen = (reason: unknown) => void unhandled.push(reason);
    process.on('unhandledRejection', listen);
    try {
      expect(() => emitter(everywhere(hook))('received', event)).not.toThrow();
      // Node tells of a rejection that nobody handles after the microtasks of the turn.
      await new Promise((resolve) => setImmediate(resolve));
      expect(unhandled).toEqual([]);
    } finally {
      process.off('unhandledRejection', listen);
    }
  });
});

describe('tell', () => {
  const job = { message: event.message, key: 'k' };

  it('adds what all events of a message have in common', () => {
    const got: unknown[] = [];
    const hooks: EventHooks = { completed: (told) => got.push(told) };
    const tell = teller('test', hooks, emitter(hooks));
    tell('completed', job, { attempt: 2, durationMs: 5 });
    tell('busy', job, { remainingMs: 7 });
    expect(got).toEqual([{ scope: 'test', message: event.message, key: 'k', attempt: 2, durationMs: 5 }]);
  });

  it('says that there is no key, where there is none', () => {
    const got: unknown[] = [];
    const hooks: EventHooks = { received: (told) => got.push(told) };
    teller('test', hooks, emitter(hooks))('received', { ...job, key: '' }, {});
    expect(got).toEqual([{ scope: 'test', message: event.message, key: undefined }]);
  });

  it('builds nothing where nobody listens', () => {
    const details = new Proxy({ remainingMs: 7 }, { ownKeys: () => expect.fail('must not be read') });
    teller('test', {}, emitter({}))('busy', job, details);
  });
});

describe('a receiver whose hooks are all broken', () => {
  const scenario = async (hooks: EventHooks | undefined) => {
    let runs = 0;
    const { receiver, store, faults, world } = stand(
      (payload) => {
        runs++;
        if (payload.id === 'poison') throw new Error('cannot');
      },
      { maxAttempts: 2, ...(hooks ? { on: hooks } : {}) },
    );
    const seen: string[] = [];
    const process = async (...deliveries: ReturnType<typeof delivery>[]) => seen.push(...actions(await receiver.process(deliveries)));
    await process(delivery('a'), delivery('a', { messageId: 'copy' }), delivery('b'));
    await process(delivery('a'), delivery('a', { payload: { id: 'a', other: true } }));
    await process(delivery('poison'));
    await process(delivery('poison'));
    await process({ message: { id: 'no key', body: '{}', headers: {} } });
    const payload = { id: 'c' };
    await store.claim([
      { key: receiver.keyOf(delivery('c', { payload }).message), fingerprint: '', token: 'other', leaseMs: 100, retainMs: 1_000 },
    ]);
    await process(delivery('c'));
    faults.broken.claim = 'before';
    await process(delivery('d'));
    delete faults.broken.claim;
    await world.advance(1_000);
    await process(delivery('d'));
    return { seen, runs };
  };

  it.each([
    ['throw', throwing],
    ['reject', rejecting],
  ])('gives the same verdicts as one without hooks: they %s', async (_, hook) => {
    const without = await scenario({});
    expect(without.seen).toEqual([
      'ack completed',
      'ack duplicate',
      'ack completed',
      'ack duplicate',
      'dead-letter mismatch',
      'retry failed',
      'dead-letter max-attempts',
      'dead-letter invalid-key',
      'retry busy',
      'retry store',
      'ack completed',
    ]);
    expect(await scenario(everywhere(hook))).toEqual(without);
  });
});
