import { describe, expect, it } from 'vitest';
import { ReceiverError } from '../src/errors.ts';
import { type Lease, leases } from '../src/lease.ts';
import type { Delivery, Source } from '../src/message.ts';
import type { Hold, Settled } from '../src/store.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';
import { latch } from './support/stand.ts';

const leaseMs = 30_000;
const never = () => new Promise<never>(() => {});

interface Started {
  readonly claim?: false;
  readonly claimedAt?: number;
  readonly source?: Source;
  readonly heldUntil?: number;
}

type Extend = (holds: readonly Hold[]) => Promise<readonly Settled[]>;

function stand(extend: Extend = async (holds) => holds.map(() => 'ok' as const)) {
  const world = virtualWorld();
  // A paused process: time has gone on, and no timer has fired in between.
  let pausedMs = 0;
  const clock = { ...world.clock, now: () => world.clock.now() + pausedMs };
  const calls: { at: number; keys: string[] }[] = [];
  const behaviour = { extend };
  const kept = leases({
    clock,
    leaseMs,
    extend: (holds) => {
      calls.push({ at: clock.now(), keys: holds.map(({ key }) => key) });
      return behaviour.extend(holds);
    },
  });
  const start = (key: string, more: Started = {}): Lease => {
    const lease = kept.start(deliveryOf(key, more.heldUntil), more.source ?? {}, clock.now());
    if (more.claim !== false) lease.claim({ key, token: `token ${key}` }, more.claimedAt ?? clock.now());
    return lease;
  };
  return { world, kept, start, calls, behaviour, pause: (ms: number) => (pausedMs += ms), now: clock.now };
}

function deliveryOf(id: string, heldUntil?: number): Delivery {
  return { message: { id, body: '', headers: {} }, heldUntil };
}

const lost = (text: string) => expect.objectContaining({ code: 'claim-lost', message: text });
const lateClaim = 'The lease ended before it could be extended';
const lateHold = "The broker's hold on the delivery ended before it could be extended";

describe('the heartbeat', () => {
  it('beats at a third of the lease, with the whole lease to hold for', async () => {
    const asked: Hold[][] = [];
    const { world, start, calls } = stand(async (holds) => {
      asked.push([...holds]);
      return holds.map(() => 'ok');
    });
    start('a');
    await world.advance(9_999);
    expect(calls).toEqual([]);
    await world.advance(20_001);
    expect(calls.map(({ at }) => at)).toEqual([10_000, 20_000, 30_000]);
    expect(asked[0]).toEqual([{ key: 'a', token: 'token a', leaseMs }]);
  });

  it('is one call per beat for all leases, whenever they began', async () => {
    const { world, start, calls } = stand();
    start('a');
    await world.advance(3_000);
    start('b');
    await world.advance(3_000);
    start('c');
    await world.advance(14_000);
    expect(calls).toEqual([
      { at: 10_000, keys: ['a', 'b', 'c'] },
      { at: 20_000, keys: ['a', 'b', 'c'] },
    ]);
  });

  it('keeps a lease for as long as it beats', async () => {
    const { world, start } = stand();
    const lease = start('a');
    for (let i = 0; i < 20; i++) await world.advance(7_000);
    expect(lease.over).toBe(false);
    expect(lease.signal.aborted).toBe(false);
    expect(lease.remainingMs).toBeGreaterThanOrEqual(leaseMs - 10_000);
  });

  it('leaves out leases that have ended', async () => {
    const { world, start, calls, kept } = stand();
    const a = start('a');
    start('b');
    a.end();
    a.end();
    expect(kept.claims()).toBe(1);
    await world.advance(10_000);
    expect(calls).toEqual([{ at: 10_000, keys: ['b'] }]);
  });

  it('has no timer before the first lease and after the last one', async () => {
    const { world, start, calls, kept } = stand();
    expect(world.timers).toBe(0);
    const [a, b] = [start('a'), start('b')];
    expect(world.timers).toBe(1);
    a.end();
    expect(world.timers).toBe(1);
    b.end();
    expect(world.timers).toBe(0);
    expect(kept.claims()).toBe(0);
    await world.advance(100_000);
    expect(calls).toEqual([]);
  });

  it('begins anew after a rest, a third of the lease later', async () => {
    const { world, start, calls } = stand();
    const a = start('a');
    await world.advance(6_000);
    a.end();
    await world.advance(50_000);
    start('b');
    await world.advance(10_000);
    expect(calls).toEqual([{ at: 66_000, keys: ['b'] }]);
  });

  it('does not ask again while a call is under way, and goes on when it returns', async () => {
    const { promise, open } = latch();
    const { world, start, calls, behaviour } = stand(async (holds) => {
      await promise;
      return holds.map(() => 'ok' as const);
    });
    const lease = start('a');
    await world.advance(25_000);
    expect(calls).toHaveLength(1);
    behaviour.extend = async (holds) => holds.map(() => 'ok');
    open();
    await world.advance(5_000);
    expect(calls).toHaveLength(2);
    expect(lease.over).toBe(false);
  });

  it('stops for good with endAll, without aborting anything', async () => {
    const { world, start, calls, kept } = stand();
    const lease = start('a');
    start('b');
    kept.endAll();
    await world.advance(20_000);
    expect([world.timers, kept.claims(), calls.length]).toEqual([0, 0, 0]);
    expect(lease.signal.aborted).toBe(false);
  });
});

describe('a claim', () => {
  it('is counted from when it was asked for, not from when the answer came', async () => {
    const { world, start } = stand(never);
    await world.advance(8_000);
    const lease = start('a', { claimedAt: 3_000 });
    expect(lease.remainingMs).toBe(25_000);
    await world.advance(24_999);
    expect(lease.over).toBe(false);
    await world.advance(1);
    expect(lease.over).toBe(true);
    expect(lease.remainingMs).toBe(0);
  });

  it('that another worker has taken is lost at the next beat', async () => {
    const { world, start } = stand(async (holds) => holds.map(({ key }) => (key === 'a' ? 'fenced' : 'ok')));
    const [a, b] = [start('a'), start('b')];
    await world.advance(10_000);
    expect(a.signal.reason).toBeInstanceOf(ReceiverError);
    expect(a.signal.reason).toEqual(lost('Another worker has claimed the message'));
    expect(a.over).toBe(true);
    expect(b.signal.aborted).toBe(false);
  });

  it('that was given back and claimed anew is not lost by the answer for the claim before it', async () => {
    const answer = latch<readonly Settled[]>();
    const { world, start } = stand(() => answer.promise);
    const lease = start('a');
    await world.advance(10_000);
    lease.unclaim();
    lease.claim({ key: 'a', token: 'a new one' }, world.clock.now());
    answer.open(['fenced']);
    await world.settle();
    expect([lease.over, lease.aborted]).toEqual([false, undefined]);
  });

  it('that is lost is not extended any more', async () => {
    const { world, start, calls, behaviour } = stand(async (holds) => holds.map(() => 'fenced'));
    start('a');
    await world.advance(10_000);
    behaviour.extend = async (holds) => holds.map(() => 'ok');
    start('b');
    await world.advance(20_000);
    expect(calls.map(({ keys }) => keys)).toEqual([['a'], ['b'], ['b']]);
  });

  it.each<[string, Extend]>([
    ['fails', () => Promise.reject(new Error('down'))],
    [
      'throws at once',
      () => {
        throw new Error('down');
      },
    ],
    ['hangs', never],
    ['answers nonsense', async () => undefined as never],
    ['answers something unknown', async (holds) => holds.map(() => 'what?' as Settled)],
  ])('whose extension %s is lost at its deadline, and no sooner', async (_, extend) => {
    const { world, start } = stand(extend);
    const lease = start('a');
    await world.advance(29_999);
    expect(lease.over).toBe(false);
    expect(lease.signal.aborted).toBe(false);
    await world.advance(1);
    expect(lease.over).toBe(true);
    expect(lease.signal.reason).toEqual(lost(lateClaim));
  });

  it('is lost at its deadline, not at the beat after it', async () => {
    const { world, start } = stand(never);
    start('a');
    await world.advance(5_000);
    const late = start('b');
    await world.advance(29_999);
    expect(late.signal.aborted).toBe(false);
    await world.advance(1);
    expect(late.signal.reason).toEqual(lost(lateClaim));
  });

  it('survives extensions that fail, if one succeeds before the deadline', async () => {
    let tries = 0;
    const { world, start } = stand(async (holds) => {
      if (++tries === 1) throw new Error('down');
      return holds.map(() => 'ok');
    });
    const lease = start('a');
    await world.advance(20_000);
    expect(lease.remainingMs).toBe(leaseMs);
  });

  it('is extended from when that was asked, not from when the answer came', async () => {
    const { promise, open } = latch();
    const { world, start } = stand(async (holds) => {
      await promise;
      return holds.map(() => 'ok' as const);
    });
    const lease = start('a');
    await world.advance(18_000);
    open();
    await world.settle();
    expect(lease.remainingMs).toBe(22_000);
  });

  it('is kept again for others after an extension that hung for a whole lease', async () => {
    const { world, start, behaviour } = stand(never);
    start('a');
    await world.advance(40_000);
    behaviour.extend = async (holds) => holds.map(() => 'ok');
    const later = start('b');
    await world.advance(100_000);
    expect(later.over).toBe(false);
  });

  it('of a process that was paused past the deadline is over before any timer fires, and lost with the first one', async () => {
    const { world, start, pause, behaviour } = stand();
    const lease = start('a');
    await world.advance(1_000);
    pause(40_000);
    // The store would still say yes: the process can't know whether anybody was in between, and does not ask.
    behaviour.extend = async (holds) => holds.map(() => 'ok');
    expect(lease.over).toBe(true);
    expect(lease.remainingMs).toBe(0);
    await world.advance(9_000);
    expect(lease.signal.reason).toEqual(lost(lateClaim));
  });

  it('of a process that was paused for less than what was left is extended', async () => {
    const { world, start, pause, now } = stand();
    const lease = start('a');
    pause(25_000);
    await world.advance(10_000);
    expect(now()).toBe(35_000);
    expect(lease.over).toBe(true);
    const other = start('b');
    pause(15_000);
    await world.advance(10_000);
    expect(other.over).toBe(false);
    expect(other.signal.aborted).toBe(false);
  });
});

describe("the broker's hold", () => {
  const source = (hold: Source['hold']): Source => (hold ? { hold } : {});

  it('is extended with the claims, in one call per source and beat', async () => {
    const { world, start, calls } = stand();
    const held: [string, string[], number, number][] = [];
    const named = (name: string) =>
      source(async (deliveries, forMs) => {
        held.push([name, deliveries.map(({ message }) => message.id), forMs, world.clock.now()]);
        return deliveries.map(() => true);
      });
    const [s1, s2] = [named('s1'), named('s2')];
    const all = [
      start('a', { source: s1, heldUntil: 35_000 }),
      start('b', { source: s2, heldUntil: 35_000 }),
      start('c', { source: s1, heldUntil: 35_000 }),
    ];
    start('d');
    await world.advance(10_000);
    expect(held).toEqual([
      ['s1', ['a', 'c'], leaseMs, 10_000],
      ['s2', ['b'], leaseMs, 10_000],
    ]);
    expect(calls).toHaveLength(1);
    await world.advance(90_000);
    expect(all.some(({ over }) => over)).toBe(false);
  });

  it('that the broker has taken back ends the claim too', async () => {
    const { world, start } = stand();
    const s = source(async (deliveries) => deliveries.map(({ message }) => message.id !== 'a'));
    const [a, b] = [start('a', { source: s }), start('b', { source: s })];
    await world.advance(10_000);
    expect(a.over).toBe(true);
    expect(a.signal.reason).toEqual(lost('The broker has taken the delivery back'));
    expect(b.over).toBe(false);
  });

  it('of a whole source that is lost ends at once, with a claim or without one, and for what comes of it afterwards', async () => {
    const { start } = stand();
    const gone = new AbortController();
    const source = { lost: gone.signal };
    const leases = [start('a', { source }), start('b', { source: { ...source }, claim: false })];
    const other = start('c', { source: { lost: new AbortController().signal } });
    gone.abort();
    leases.push(start('d', { source }));
    expect(leases.map(({ over }) => over)).toEqual([true, true, true]);
    for (const lease of leases) expect(lease.signal.reason).toEqual(lost('The broker has taken the delivery back'));
    expect([other.over, other.aborted]).toEqual([false, undefined]);
  });

  it.each<[string, Source['hold']]>([
    ['fails', () => Promise.reject(new Error('down'))],
    [
      'throws at once',
      () => {
        throw new Error('down');
      },
    ],
    ['hangs', never],
    ['is unknown', async (deliveries) => deliveries.map(() => undefined)],
    ['is nonsense', async () => undefined as never],
    ['is not kept at all', undefined],
  ])('whose extension %s is lost at its deadline, and its claim with it', async (_, hold) => {
    const { world, start } = stand();
    const lease = start('a', { source: source(hold), heldUntil: 25_000 });
    await world.advance(24_999);
    expect(lease.over).toBe(false);
    await world.advance(1);
    expect(lease.over).toBe(true);
    expect(lease.signal.reason).toEqual(lost(lateHold));
  });

  it('that hangs does not keep the claims of others from being extended', async () => {
    const { world, start, calls } = stand();
    start('a', { source: source(never) });
    const other = start('b', { source: source(async (deliveries) => deliveries.map(() => true)), heldUntil: 35_000 });
    await world.advance(100_000);
    expect(calls).toHaveLength(10);
    expect(other.over).toBe(false);
  });

  it('is asked for again after a call that hung for a whole lease', async () => {
    const { world, start } = stand();
    let hangs = true;
    let asked = 0;
    const s = source(async (deliveries) => {
      asked++;
      return hangs ? never() : deliveries.map(() => true);
    });
    start('a', { source: s });
    await world.advance(30_000);
    expect(asked).toBe(1);
    hangs = false;
    const later = start('b', { source: s, heldUntil: 65_000 });
    await world.advance(100_000);
    expect(later.over).toBe(false);
  });

  it('of which little is left is extended sooner', async () => {
    const { world, start } = stand();
    const at: number[] = [];
    const s = source(async (deliveries) => {
      at.push(world.clock.now());
      return deliveries.map(() => true);
    });
    const lease = start('a', { source: s, heldUntil: 6_000 });
    await world.advance(100_000);
    expect(at.slice(0, 2)).toEqual([2_000, 12_000]);
    expect(lease.over).toBe(false);
  });

  it('that has ended before the lease begins is over at once', async () => {
    const { world, start } = stand();
    await world.advance(5_000);
    const lease = start('a', { heldUntil: 4_000 });
    expect(lease.over).toBe(true);
    await world.advance(0);
    expect(lease.signal.reason).toEqual(lost(lateHold));
  });
});

describe('in a transaction, where there is no claim', () => {
  it('nothing is extended, and nothing is left to give back', async () => {
    const { world, start, calls } = stand();
    const lease = start('a', { claim: false });
    await world.advance(100_000);
    expect(calls).toEqual([]);
    expect(lease.over).toBe(false);
    expect(lease.remainingMs).toBe(0);
  });

  it.each<[string, Source]>([
    ['was taken back', { hold: async (deliveries) => deliveries.map(() => false) }],
    ['ran out', {}],
  ])('a delivery that %s must not be started any more, but what runs is not aborted: what commits counts', async (_, source) => {
    const { world, start } = stand();
    const lease = start('a', { claim: false, source, heldUntil: 20_000 });
    await world.advance(20_000);
    expect(lease.over).toBe(true);
    expect(lease.signal.aborted).toBe(false);
  });
});

describe('abort', () => {
  it('aborts the signal with its reason, the first one for good', async () => {
    const { world, start, kept } = stand(async (holds) => holds.map(() => 'fenced'));
    const [a, b] = [start('a'), start('b', { claim: false })];
    const timeout = new ReceiverError('handler-timeout', 'too long');
    a.abort(timeout);
    const stopped = new ReceiverError('stopped', 'stopping');
    kept.abortAll(stopped);
    await world.advance(10_000);
    expect(a.signal.reason).toBe(timeout);
    expect(b.signal.reason).toBe(stopped);
  });

  it('does not end the lease: a handler that goes on in spite of it still holds its claim', async () => {
    const { world, start } = stand();
    const lease = start('a');
    lease.abort(new ReceiverError('handler-timeout', 'too long'));
    await world.advance(100_000);
    expect(lease.over).toBe(false);
    expect(lease.remainingMs).toBeGreaterThan(0);
  });
});

describe('the time limit of a handler', () => {
  const timeout = (ms: number) =>
    expect.objectContaining({ code: 'handler-timeout', message: `The handler has been running for ${ms} ms` });

  it('aborts the signal when it is over, between two beats, and the claim is kept', async () => {
    const { world, start, calls } = stand();
    const lease = start('a');
    await world.advance(1_000);
    lease.limit(world.clock.now(), 12_000);
    await world.advance(11_999);
    expect(lease.signal.aborted).toBe(false);
    await world.advance(1);
    expect(lease.signal.reason).toEqual(timeout(12_000));
    expect(lease.over).toBe(false);
    await world.advance(87_000);
    expect(calls.map(({ at }) => at)).toEqual([10, 20, 30, 40, 50, 60, 70, 80, 90, 100].map((s) => s * 1_000));
  });

  it('holds where there is no claim and no hold', async () => {
    const { world, start } = stand();
    const lease = start('a', { claim: false });
    lease.limit(world.clock.now(), 500);
    await world.advance(500);
    expect(lease.signal.reason).toEqual(timeout(500));
  });

  it('is each lease its own, and can be taken back', async () => {
    const { world, start } = stand();
    const [a, b, c] = [start('a'), start('b'), start('c')];
    a.limit(world.clock.now(), 5_000);
    b.limit(world.clock.now(), 3_000);
    c.limit(world.clock.now(), 4_000);
    c.unlimit();
    await world.advance(3_000);
    expect([a, b, c].map(({ aborted }) => aborted?.code)).toEqual([undefined, 'handler-timeout', undefined]);
    await world.advance(2_000);
    expect([a, b, c].map(({ aborted }) => aborted?.code)).toEqual(['handler-timeout', 'handler-timeout', undefined]);
    await world.advance(300_000);
    expect(c.aborted).toBeUndefined();
  });

  it('of a lost lease still ends nothing twice: the first reason stays', async () => {
    const { world, start } = stand(async (holds) => holds.map(() => 'fenced'));
    const lease = start('a');
    lease.limit(world.clock.now(), 15_000);
    await world.advance(20_000);
    expect(lease.aborted?.code).toBe('claim-lost');
  });

  it('may be over for one whose end, and the limit of another, follow from it', async () => {
    const { world, start } = stand();
    const [a, b] = [start('a'), start('b')];
    a.whenAborted(() => {
      b.limit(world.clock.now(), 1_000);
      a.end();
    });
    b.whenAborted(() => b.end());
    a.limit(world.clock.now(), 5_000);
    await world.advance(6_000);
    expect([a, b].map(({ aborted }) => aborted?.code)).toEqual(['handler-timeout', 'handler-timeout']);
    expect(world.timers).toBe(0);
  });

  it('leaves no timer behind when the lease ends', async () => {
    const { world, start } = stand();
    const lease = start('a');
    lease.limit(world.clock.now(), 5_000);
    lease.end();
    expect(world.timers).toBe(0);
  });
});

describe('whoever waits for the abort', () => {
  it('of a lease that is aborted already is called at once', () => {
    const { start } = stand();
    const lease = start('a');
    lease.abort(new ReceiverError('stopped', 'The receiver is stopping'));
    let calls = 0;
    lease.whenAborted(() => calls++);
    expect(calls).toBe(1);
  });
});

describe('the signal', () => {
  it('that is asked for only after it was aborted is aborted with the same reason', async () => {
    const { world, start } = stand(async (holds) => holds.map(() => 'fenced'));
    const lease = start('a');
    await world.advance(10_000);
    expect(lease.aborted).toEqual(lost('Another worker has claimed the message'));
    expect(lease.signal.aborted).toBe(true);
    expect(lease.signal.reason).toBe(lease.aborted);
    expect(lease.signal).toBe(lease.signal);
  });
});

describe('listeners of the signal', () => {
  it('may end their lease, or begin another, at once', async () => {
    const { world, start, kept } = stand(async (holds) => holds.map(({ key }) => (key === 'a' ? 'fenced' : 'ok')));
    const a = start('a');
    let b: Lease | undefined;
    a.signal.addEventListener('abort', () => {
      a.end();
      b = start('b');
    });
    await world.advance(100_000);
    expect(b?.over).toBe(false);
    expect(kept.claims()).toBe(1);
    b?.end();
    expect(world.timers).toBe(0);
  });
});
