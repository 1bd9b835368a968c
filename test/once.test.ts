import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { memoryStore } from '../adapters/stores/memory.ts';
import { once, type ReceiverError, RetryAfter, TerminalError } from '../src/index.ts';
import type { OnceOptions } from '../src/once.ts';
import type { DedupStore } from '../src/store.ts';
import { type VirtualWorld, virtualWorld } from '../src/testing/virtual-world.ts';
import { faulty, latch, watch } from './support/stand.ts';

interface Order {
  readonly id: string;
  readonly amount?: number;
}

/** Options for functions of an order, on a store in a virtual world. */
function stand(more: Partial<OnceOptions<[Order]>> = {}, shared?: { world: VirtualWorld; real: DedupStore }) {
  const world = shared?.world ?? virtualWorld();
  const real = shared?.real ?? memoryStore({ now: world.clock.now });
  const { store, broken, calls } = faulty(real);
  const options: OnceOptions<[Order]> = { store, scope: 'charge', key: (order) => order.id, world, ...more };
  return { world, real, broken, calls, options };
}

const code = (expected: string, message?: string) =>
  expect.objectContaining({ name: 'ReceiverError', code: expected, ...(message ? { message: expect.stringContaining(message) } : {}) });

describe('the first call', () => {
  it('runs the function with its arguments, and gives what it gives', async () => {
    const { options } = stand();
    const charge = once(options, async (order) => `charged ${order.id}`);
    expect(await charge({ id: 'a' })).toBe('charged a');
  });

  it('makes a promise of a function that has none', async () => {
    const { options } = stand();
    expect(await once(options, (order) => order.amount)({ id: 'a', amount: 5 })).toBe(5);
  });

  it('gives every argument on', async () => {
    const { store, world } = { ...stand().options };
    const add = once({ store, scope: 'add', key: (a: number, b: number) => `${a}+${b}`, world: world! }, (a: number, b: number) => a + b);
    expect(await add(1, 2)).toBe(3);
    expect(await add(2, 1)).toBe(3);
  });

  it('keeps the name of the function', () => {
    const { options } = stand();
    expect(once(options, function charge() {}).name).toBe('charge');
  });
});

describe('later calls', () => {
  it.each([[undefined], [null], [0], [''], [false], [[]], [{ receipt: { id: 7, lines: [{ a: null }] } }]])(
    'get %j, the result of the first one',
    async (result) => {
      const { options, real, world } = stand();
      let runs = 0;
      const charge = once(options, () => {
        runs++;
        return result;
      });
      expect(await charge({ id: 'a' })).toStrictEqual(result);
      expect(await charge({ id: 'a' })).toStrictEqual(result);
      const inAnotherProcess = once(stand({}, { real, world }).options, () => expect.fail('must not run'));
      expect(await inAnotherProcess({ id: 'a' })).toStrictEqual(result);
      expect(runs).toBe(1);
    },
  );

  it('get a copy of their own, which they may change', async () => {
    const { options } = stand();
    const charge = once(options, () => ({ receipts: [7] }));
    await charge({ id: 'a' });
    (await charge({ id: 'a' })).receipts.push(8);
    expect(await charge({ id: 'a' })).toEqual({ receipts: [7] });
  });

  it('get a Date as text, because results are kept as JSON', async () => {
    const { options } = stand();
    const charge = once(options, () => new Date(0));
    await charge({ id: 'a' });
    expect(await charge({ id: 'a' })).toBe('1970-01-01T00:00:00.000Z');
  });

  it('get what a codec makes of it', async () => {
    const codec = { encode: (date: unknown) => String((date as Date).getTime()), decode: (text: string) => new Date(Number(text)) };
    const { options } = stand({ codec });
    const charge = once(options, () => new Date(0));
    await charge({ id: 'a' });
    expect(await charge({ id: 'a' })).toEqual(new Date(0));
  });

  it('with another key run the function', async () => {
    const { options } = stand();
    const charge = once(options, (order) => order.id);
    expect([await charge({ id: 'a' }), await charge({ id: 'b' })]).toEqual(['a', 'b']);
  });

  it('run it again when the retention is over', async () => {
    const { options, world } = stand({ retentionMs: 60_000 });
    let runs = 0;
    const charge = once(options, () => ++runs);
    await charge({ id: 'a' });
    await world.advance(59_000);
    expect(await charge({ id: 'a' })).toBe(1);
    await world.advance(1_001);
    expect(await charge({ id: 'a' })).toBe(2);
  });
});

describe('two scopes', () => {
  it('on one store do not mix', async () => {
    const { options } = stand();
    const charge = once(options, () => 'charged');
    const mail = once({ ...options, scope: 'mail' }, () => 'mailed');
    expect([await charge({ id: 'a' }), await mail({ id: 'a' })]).toEqual(['charged', 'mailed']);
    expect([await charge({ id: 'a' }), await mail({ id: 'a' })]).toEqual(['charged', 'mailed']);
  });
});

describe('concurrent calls', () => {
  it('wait for the first one and get its result', async () => {
    const { options, world } = stand();
    const { promise, open } = latch<string>();
    let runs = 0;
    const charge = once(options, () => {
      runs++;
      return promise;
    });
    const calls = [1, 2, 3].map(() => watch(charge({ id: 'a' })));
    const other = watch(once(options, () => 'other')({ id: 'b' }));
    await world.advance(5_000);
    expect(calls.map(({ done }) => done)).toEqual([false, false, false]);
    expect(other.value).toBe('other');
    open('receipt');
    await world.advance(1_000);
    expect(calls.map(({ value }) => value)).toEqual(['receipt', 'receipt', 'receipt']);
    expect(runs).toBe(1);
    expect(world.timers).toBe(0);
  });

  it('wait for one in another process too, longer than its first lease', async () => {
    const first = stand({ waitMs: 100_000 });
    const second = stand({ waitMs: 100_000 }, first);
    const { promise, open } = latch<string>();
    const running = watch(once(first.options, () => promise)({ id: 'a' }));
    await first.world.settle();
    const waiting = watch(once(second.options, () => expect.fail('must not run'))({ id: 'a' }));
    await first.world.advance(65_000);
    expect(waiting.done).toBe(false);
    open('receipt');
    await first.world.advance(2_000);
    expect([running.value, waiting.value]).toEqual(['receipt', 'receipt']);
  });

  it('run it themselves if the first one fails', async () => {
    const { options, world } = stand();
    const { promise, fail } = latch<string>();
    let runs = 0;
    const charge = once(options, () => (++runs === 1 ? promise : 'second'));
    const calls = [watch(charge({ id: 'a' })), watch(charge({ id: 'a' }))];
    await world.settle();
    const error = new Error('gateway down');
    fail(error);
    await world.advance(1_000);
    expect(calls.map(({ error: thrown, value }) => thrown ?? value)).toEqual([error, 'second']);
  });

  it('are told that it is busy after `waitMs`, and when to come back', async () => {
    const { options, world } = stand({ waitMs: 3_000 });
    const charge = once(options, () => new Promise(() => {}));
    void charge({ id: 'a' });
    await world.settle();
    const waiting = watch(charge({ id: 'a' }));
    await world.advance(2_999);
    expect(waiting.done).toBe(false);
    await world.advance(1);
    expect(waiting.error).toEqual(code('busy', '"charge" is running for this key in another worker'));
    const { retryAfterMs } = waiting.error as ReceiverError;
    expect(retryAfterMs).toBeGreaterThanOrEqual(27_000);
    expect(retryAfterMs).toBeLessThanOrEqual(28_000);
  });

  it('do not wait at all with `waitMs: 0`', async () => {
    const { options, world } = stand({ waitMs: 0 });
    const charge = once(options, () => new Promise(() => {}));
    void charge({ id: 'a' });
    await world.settle();
    await expect(charge({ id: 'a' })).rejects.toEqual(code('busy'));
  });

  it('wait for 30 s by default', async () => {
    const { options, world } = stand();
    const charge = once(options, () => new Promise(() => {}));
    void charge({ id: 'a' });
    await world.settle();
    const waiting = watch(charge({ id: 'a' }));
    await world.advance(29_999);
    expect(waiting.done).toBe(false);
    await world.advance(1);
    expect(waiting.error).toEqual(code('busy'));
  });

  it('cost one round trip to claim and one to settle, however many keys', async () => {
    const { options, calls } = stand();
    const charge = once(options, (order) => order.id);
    await Promise.all(Array.from({ length: 50 }, (_, i) => charge({ id: `order ${i}` })));
    expect(calls).toEqual([
      { verb: 'claim', items: 50 },
      { verb: 'settle', items: 50 },
    ]);
  });
});

describe('a function that fails', () => {
  it('throws its own error, and can be called again at once', async () => {
    const { options, world } = stand();
    const error = new TypeError('gateway down');
    let runs = 0;
    const charge = once(options, () => {
      if (++runs === 1) throw error;
      return 'receipt';
    });
    await expect(charge({ id: 'a' })).rejects.toBe(error);
    expect(await charge({ id: 'a' })).toBe('receipt');
    expect(world.timers).toBe(0);
  });

  it.each([['text'], [undefined], [null], [Object.create(null)], [new RetryAfter(5_000)]])(
    'throws what it threw, whatever that is',
    async (thrown) => {
      const { options } = stand();
      const charge = once(options, () => Promise.reject(thrown));
      const seen = await charge({ id: 'a' }).catch((error: unknown) => ({ error }));
      expect((seen as { error: unknown }).error).toBe(thrown);
    },
  );

  it('is given up after `maxAttempts`: the last call still throws its own error, the next ones say `parked` and why', async () => {
    const { options, real, world } = stand({ maxAttempts: 3 });
    let runs = 0;
    const charge = once(options, () => Promise.reject(new Error(`failure ${++runs}`)));
    for (const n of [1, 2, 3]) await expect(charge({ id: 'a' })).rejects.toThrow(`failure ${n}`);
    const parked = code('parked', '"charge" was given up for this key (max-attempts): Error: failure 3');
    await expect(charge({ id: 'a' })).rejects.toEqual(parked);
    const inAnotherProcess = once(stand({}, { real, world }).options, () => 'never');
    await expect(inAnotherProcess({ id: 'a' })).rejects.toEqual(parked);
    expect(runs).toBe(3);
  });

  it('with a TerminalError is final at once', async () => {
    const { options } = stand();
    const error = new TerminalError('card stolen');
    let runs = 0;
    const charge = once(options, () => {
      runs++;
      throw error;
    });
    await expect(charge({ id: 'a' })).rejects.toBe(error);
    await expect(charge({ id: 'a' })).rejects.toEqual(code('parked', '(terminal): TerminalError: card stolen'));
    expect(runs).toBe(1);
  });

  it('by a result that can not be stored is an error with a code, and is not run again', async () => {
    const { options } = stand();
    let runs = 0;
    const charge = once(options, () => {
      runs++;
      return { total: 1n };
    });
    await expect(charge({ id: 'a' })).rejects.toEqual(code('codec', "JSON can't hold a bigint"));
    await expect(charge({ id: 'a' })).rejects.toEqual(code('parked', '(unencodable-result)'));
    expect(runs).toBe(1);
  });

  it('by a result that is too long is refused in the same way', async () => {
    const { options } = stand({ maxResultBytes: 10 });
    await expect(once(options, () => 'x'.repeat(20))({ id: 'a' })).rejects.toEqual(code('codec', 'at most 10 bytes, got 22'));
  });

  it('by running too long is told so, and keeps others out until its lease ends', async () => {
    const { options, world } = stand({ handlerTimeoutMs: 5_000, waitMs: 0 });
    const charge = once(options, () => new Promise(() => {}));
    const call = watch(charge({ id: 'a' }));
    await world.advance(7_000);
    expect(call.error).toEqual(code('handler-timeout', '"charge" ran too long'));
    // Nobody else may start before the lease has ended.
    expect((call.error as { retryAfterMs: number }).retryAfterMs).toBeGreaterThan(20_000);
    await expect(charge({ id: 'a' })).rejects.toEqual(code('busy'));
  });
});

describe('a claim that is lost while the function runs', () => {
  it('is told as `claim-lost`, and its result is not stored', async () => {
    const first = stand();
    const { promise, open } = latch<string>();
    const call = watch(once(first.options, () => promise)({ id: 'a' }));
    await first.world.settle();
    first.broken.extend = 'before';
    await first.world.advance(29_000);
    // The lease ends, and another process takes the key over.
    const second = once(stand({}, first).options, () => 'second');
    await first.world.advance(1_000);
    expect(await second({ id: 'a' })).toBe('second');
    open('first');
    await first.world.advance(2_000);
    expect(call.error).toEqual(code('claim-lost', '"charge" lost its claim while it ran; another worker may have taken over'));
    expect(call.error).toMatchObject({ retryAfterMs: expect.any(Number) });
    expect(await second({ id: 'a' })).toBe('second');
  });
});

describe('the fingerprint', () => {
  it('is not taken by default: a key alone says what is the same call', async () => {
    const { options } = stand();
    const charge = once(options, (order) => order.amount);
    await charge({ id: 'a', amount: 5 });
    expect(await charge({ id: 'a', amount: 6 })).toBe(5);
  });

  it('tells calls apart that have one key by mistake', async () => {
    const { options } = stand({ fingerprint: (order) => order.amount });
    const charge = once(options, (order) => order.amount);
    await charge({ id: 'a', amount: 5 });
    await expect(charge({ id: 'a', amount: 6 })).rejects.toEqual(
      code('mismatch', '"charge" was called before with this key and other arguments'),
    );
    expect(await charge({ id: 'a', amount: 5 })).toBe(5);
  });

  it('tells them apart too where an option that is not its own says to try again', async () => {
    const { options } = stand({ fingerprint: (order) => order.amount, ...({ onMismatch: 'retry' } as object) });
    const charge = once(options, (order) => order.amount);
    await charge({ id: 'a', amount: 5 });
    await expect(charge({ id: 'a', amount: 6 })).rejects.toEqual(
      code('mismatch', '"charge" was called before with this key and other arguments'),
    );
  });

  it('that can not be taken is an error of its own, and nothing is run or parked', async () => {
    const { options } = stand({ fingerprint: ({ amount }) => (amount === 1 ? new Map() : amount) });
    const charge = once(options, (order) => order.amount);
    const error: unknown = await charge({ id: 'a', amount: 1 }).catch((thrown) => thrown);
    expect(error).toEqual(code('not-canonical', 'The fingerprint of "charge" can\'t be taken: '));
    expect((error as Error).cause).toEqual(code('not-canonical', 'an instance of Map'));
    expect(await charge({ id: 'a', amount: 2 })).toBe(2);
  });
});

describe('a call without a usable key', () => {
  it.each([
    ['', 'not empty'],
    [7, 'a string, got 7'],
    [undefined, 'a string, got undefined'],
  ])('is refused: %j', async (id, text) => {
    const { options, calls } = stand();
    await expect(once(options, () => 1)({ id: id as string })).rejects.toEqual(code('invalid-key', text));
    expect(calls).toEqual([]);
  });

  it('is refused with what the key function threw', async () => {
    const { options } = stand();
    await expect(once(options, () => 1)(undefined as never)).rejects.toEqual(code('invalid-key', 'it threw TypeError: Cannot read'));
  });
});

describe('a store that is down', () => {
  it('is told as `store`, with its error as the cause, and the function does not run', async () => {
    const { options, broken } = stand();
    broken.claim = 'before';
    let runs = 0;
    const error = await once(options, () => ++runs)({ id: 'a' }).catch((thrown: unknown) => thrown);
    expect(error).toEqual(code('store', '"charge" can\'t reach its store'));
    expect((error as ReceiverError).cause).toEqual(new Error('claim: request lost'));
    expect((error as ReceiverError).retryAfterMs).toBeGreaterThanOrEqual(100);
    expect(runs).toBe(0);
  });

  it('for a moment after the function has run costs nothing but time: the result is written when it answers again', async () => {
    const { options, broken, world } = stand();
    let runs = 0;
    const charge = once(options, () => {
      broken.settle = 'before';
      return ++runs;
    });
    const call = watch(charge({ id: 'a' }));
    await world.advance(5_000);
    expect(call.done).toBe(false);
    delete broken.settle;
    await world.advance(5_000);
    expect(call.value).toBe(1);
    expect(await charge({ id: 'a' })).toBe(1);
  });

  it('for a whole lease after the function has run is told as `store`: nobody knows what has been written', async () => {
    const { options, broken, world } = stand();
    broken.settle = 'before';
    const call = watch(once(options, () => 1)({ id: 'a' }));
    await world.advance(60_000);
    expect(call.error).toEqual(code('store', "doesn't know what has become of a write"));
    expect(world.timers).toBe(0);
  });
});

describe('a function that calls itself', () => {
  it('with the same key would wait for itself, and is told so', async () => {
    const { options } = stand();
    const charge: (order: Order) => Promise<string> = once(options, (order): Promise<string> => charge(order));
    await expect(charge({ id: 'a' })).rejects.toEqual(code('nested'));
  });

  it('with another key runs', async () => {
    const { options } = stand();
    const charge: (order: Order) => Promise<string> = once(
      options,
      async (order): Promise<string> => (order.id === 'aaa' ? 'end' : `${order.id} ${await charge({ id: `${order.id}a` })}`),
    );
    expect(await charge({ id: 'a' })).toBe('a aa end');
  });

  it('round about, through another one, is told so too', async () => {
    const { options } = stand();
    const mail: (order: Order) => Promise<unknown> = once({ ...options, scope: 'mail' }, (order) => charge(order));
    const charge: (order: Order) => Promise<unknown> = once(options, (order) => mail(order));
    await expect(charge({ id: 'a' })).rejects.toEqual(code('nested'));
  });
});

describe('as middleware', () => {
  it('wraps any next function', async () => {
    const { options } = stand();
    let runs = 0;
    const middleware = once(options);
    const charge = middleware(async (order: Order) => `${order.id} ${++runs}`);
    expect([await charge({ id: 'a' }), await charge({ id: 'a' }), await charge({ id: 'b' })]).toEqual(['a 1', 'a 1', 'b 2']);
  });

  it('may be given more by `map` and the like', async () => {
    const { options } = stand();
    const [first] = [(order: Order) => order.id].map(
      once(options) as (next: (order: Order) => string) => (order: Order) => Promise<string>,
    );
    expect(await first!({ id: 'a' })).toBe('a');
  });
});

describe('as a standard method decorator', () => {
  class Till {
    readonly name: string;
    constructor(name: string) {
      this.name = name;
    }
    charge(order: Order): Promise<string> {
      return Promise.resolve(`${order.id} at ${this.name}`);
    }
  }

  /** `@once(options) charge() {}` by hand. */
  function decorated(options: OnceOptions<[Order]>) {
    class Decorated extends Till {}
    const context = { kind: 'method', name: 'charge', static: false, private: false } as ClassMethodDecoratorContext;
    Decorated.prototype.charge = once(options)(Till.prototype.charge, context);
    return Decorated;
  }

  it('keeps `this`', async () => {
    const Decorated = decorated(stand().options);
    expect(await new Decorated('till 1').charge({ id: 'a' })).toBe('a at till 1');
  });

  it('shares its records between instances: the key alone decides', async () => {
    const Decorated = decorated(stand().options);
    await new Decorated('till 1').charge({ id: 'a' });
    expect(await new Decorated('till 2').charge({ id: 'a' })).toBe('a at till 1');
    expect(await new Decorated('till 2').charge({ id: 'b' })).toBe('b at till 2');
  });

  it('works as the compiler writes it', async () => {
    // Neither vitest nor Node knows the syntax yet, so TypeScript makes JavaScript of it.
    const source = `export const make = (decorator, log) => class {
      name = 'till';
      @decorator charge(order) { log.push(this.name); return order.id; }
      @decorator static refund(order) { return order.id + ' back'; }
    };`;
    const folder = mkdtempSync(join(tmpdir(), 'once-'));
    try {
      writeFileSync(join(folder, 'till.mts'), source);
      const tsc = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));
      const flags = ['--ignoreConfig', '--noCheck', '--noResolve', '--target', 'es2024', '--module', 'esnext'];
      execFileSync(process.execPath, [tsc, ...flags, join(folder, 'till.mts')]);
      const { make } = await import(pathToFileURL(join(folder, 'till.mjs')).href);
      const log: string[] = [];
      const Decorated = make(once(stand().options), log);
      const till = new Decorated();
      expect([await till.charge({ id: 'a' }), await till.charge({ id: 'a' }), till.charge.name]).toEqual(['a', 'a', 'charge']);
      expect(log).toEqual(['till']);
      expect(await Decorated.refund({ id: 'b' })).toBe('b back');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('is refused on anything but a method, and as a legacy decorator', () => {
    const { options } = stand();
    const decorate = once(options) as unknown as (value: unknown, context?: unknown) => unknown;
    const refused = (got: string) =>
      expect.objectContaining({
        code: 'invalid-option',
        message: `Expected \`fn\` to be a function, or a method with a standard (TC39) decorator, got ${got}`,
      });
    expect(() => decorate(undefined, { kind: 'field' })).toThrow(refused('`"field"` (string)'));
    expect(() => decorate(Till, { kind: 'class' })).toThrow(refused('`"class"` (string)'));
    expect(() => decorate(() => 1, { kind: 'getter' })).toThrow(refused('`"getter"` (string)'));
    expect(() => decorate(Till.prototype, 'charge')).toThrow(refused('`[object Object]` (object)'));
  });
});

describe('options', () => {
  it.each([
    ['scope', { scope: '' }, 'Expected `scope` to be the name of this consumer'],
    ['key', { key: 'id' }, 'Expected `key` to be a key strategy'],
    ['store', { store: undefined }, 'Expected `store` to be a DedupStore'],
    ['waitMs', { waitMs: -1 }, 'Expected `waitMs` to be a number of 0 or more, got `-1` (number)'],
    ['fingerprint', { fingerprint: { omit: [] } }, 'Expected `fingerprint` to be a function of the arguments'],
  ])('are checked at once: %s', (_, wrong, text) => {
    const { options } = stand();
    expect(() => once({ ...options, ...wrong } as never, () => 1)).toThrow(code('invalid-option', text));
    expect(() => once({ ...options, ...wrong } as never)(() => 1)).toThrow(code('invalid-option', text));
  });

  it('themselves are an object', () => {
    expect(() => once(undefined as never, () => 1)).toThrow(
      code('invalid-option', 'Expected `options` to be an object, got `undefined` (undefined)'),
    );
    expect(() => once(null as never, () => 1)).toThrow(code('invalid-option', 'Expected `options` to be an object, got `null` (null)'));
  });
});
