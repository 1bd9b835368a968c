import { describe, expect, it } from 'vitest';
import { memoryStore } from '../adapters/stores/memory.ts';
import { realWorld } from '../src/clock.ts';
import { jsonCodec } from '../src/codec.ts';
import { createReceiver, messageId } from '../src/index.ts';
import { isDedupStore, isTransactionalStore, receiverSettings } from '../src/options.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';

const day = 86_400_000;
const century = 36_500 * day;
const store = memoryStore();
const transactions = { unit: async () => {} };

/** What the options come to, given in the way of plain JavaScript. */
function settings(options: Record<string, unknown> = {}) {
  return receiverSettings({ scope: 'test', store, key: messageId(), ...options } as never) as unknown as Record<string, unknown>;
}

/** The very text with which an option is refused. */
function refusal(options: Record<string, unknown>): string {
  try {
    settings(options);
  } catch (error) {
    expect(error).toMatchObject({ name: 'ReceiverError', code: 'invalid-option' });
    return (error as Error).message;
  }
  return 'not refused';
}

interface NumberOption {
  readonly name: string;
  readonly byDefault: number;
  readonly expected: string;
  readonly takes: readonly number[];
  readonly refuses: readonly unknown[];
}

const infinity = Number.POSITIVE_INFINITY;
const notNumbers = [Number.NaN, '5', 5n, true, {}];

const numbers: readonly NumberOption[] = [
  {
    name: 'leaseMs',
    byDefault: 30_000,
    expected: `a whole number from 100 to ${day}`,
    takes: [100, day],
    refuses: [99, 0, -1, 100.5, day + 1, infinity],
  },
  {
    name: 'retentionMs',
    byDefault: 14 * day,
    expected: `a whole number from 30000 to ${century}`,
    takes: [30_000, century],
    refuses: [29_999, 40_000.5, century + 1, infinity],
  },
  { name: 'maxAttempts', byDefault: 10, expected: 'a whole number of 1 or more, or Infinity', takes: [1, infinity], refuses: [0, -1, 1.5] },
  { name: 'waitMs', byDefault: 0, expected: 'a number of 0 or more', takes: [0, 0.5, infinity], refuses: [-1] },
  { name: 'storeTimeoutMs', byDefault: 10_000, expected: 'a number from 1 to 29999', takes: [1, 29_999], refuses: [0, 30_000, infinity] },
  { name: 'maxResultBytes', byDefault: 65_536, expected: 'a whole number of 1 or more', takes: [1, 1e9], refuses: [0, 1.5, infinity] },
  { name: 'cacheSize', byDefault: 10_000, expected: 'a whole number of 0 or more', takes: [0, 1e6], refuses: [-1, 1.5, infinity] },
  { name: 'purgeEveryMs', byDefault: 60_000, expected: 'a number of 1 or more', takes: [1, infinity], refuses: [0, -1] },
  { name: 'concurrency', byDefault: 10, expected: 'a whole number of 1 or more, or Infinity', takes: [1, infinity], refuses: [0, 1.5, -1] },
  { name: 'handlerTimeoutMs', byDefault: 300_000, expected: 'a number of 1 or more', takes: [1, infinity], refuses: [0, -1] },
  { name: 'groupSize', byDefault: 500, expected: 'a whole number of 1 or more', takes: [1, 10_000], refuses: [0, 1.5, infinity] },
];

describe.each(numbers)('the option `$name`', ({ name, byDefault, expected, takes, refuses }) => {
  it(`is ${byDefault} by default`, () => {
    expect(settings()[name]).toBe(byDefault);
    expect(settings({ [name]: undefined })[name]).toBe(byDefault);
  });

  it.each(takes.map((value) => [value]))('takes %s', (value) => {
    expect(settings({ [name]: value, ...(name === 'leaseMs' ? { retentionMs: day } : {}) })[name]).toBe(value);
  });

  it.each([...refuses, ...notNumbers].map((value) => [value]))('refuses %s', (value) => {
    const shown = typeof value === 'string' ? JSON.stringify(value) : String(value);
    expect(refusal({ [name]: value })).toBe(`Expected \`${name}\` to be ${expected}, got \`${shown}\` (${typeof value})`);
  });
});

describe('options that depend on others', () => {
  it('`storeTimeoutMs` is a third of the lease by default, and 10 s at most', () => {
    expect(settings({ leaseMs: 3_000 })['storeTimeoutMs']).toBe(1_000);
    expect(settings({ leaseMs: day })['storeTimeoutMs']).toBe(10_000);
    expect(settings({ leaseMs: 100 })['storeTimeoutMs']).toBeCloseTo(33.3, 1);
  });

  it('`storeTimeoutMs` must be less than the lease, or an answer could come when the claim has ended', () => {
    expect(refusal({ leaseMs: 3_000, storeTimeoutMs: 3_000 })).toBe(
      'Expected `storeTimeoutMs` to be a number from 1 to 2999, got `3000` (number)',
    );
  });

  it('`retentionMs` is at least the lease', () => {
    expect(settings({ leaseMs: 60_000, retentionMs: 60_000 })).toMatchObject({ retentionMs: 60_000 });
    expect(refusal({ leaseMs: 60_000, retentionMs: 59_999 })).toContain('Expected `retentionMs` to be a whole number from 60000 to');
  });

  it('`backoff` is 1 s to 5 minutes by default, and its end never before its beginning', () => {
    expect(settings()['backoff']).toEqual({ firstMs: 1_000, maxMs: 300_000 });
    expect(settings({ backoff: {} })['backoff']).toEqual({ firstMs: 1_000, maxMs: 300_000 });
    expect(settings({ backoff: { firstMs: 0 } })['backoff']).toEqual({ firstMs: 0, maxMs: 300_000 });
    expect(settings({ backoff: { firstMs: 600_000 } })['backoff']).toEqual({ firstMs: 600_000, maxMs: 600_000 });
    expect(settings({ backoff: { maxMs: 1_000 } })['backoff']).toEqual({ firstMs: 1_000, maxMs: 1_000 });
    expect(refusal({ backoff: { maxMs: 999 } })).toBe(
      `Expected \`backoff.maxMs\` to be a number from 1000 to ${century}, got \`999\` (number)`,
    );
    expect(refusal({ backoff: { firstMs: -1 } })).toBe(
      `Expected \`backoff.firstMs\` to be a number from 0 to ${century}, got \`-1\` (number)`,
    );
    expect(refusal({ backoff: { maxMs: infinity } })).toContain('Expected `backoff.maxMs` to be a number from 1000');
    expect(refusal({ backoff: 5 })).toBe('Expected `backoff` to be `{ firstMs, maxMs }`, got `5` (number)');
  });
});

describe('options that must be given', () => {
  it('`options` themselves', () => {
    for (const [options, shown] of [
      [undefined, '`undefined` (undefined)'],
      [null, '`null` (null)'],
      ['x', '`"x"` (string)'],
    ] as const) {
      expect(() => receiverSettings(options as never)).toThrow(
        expect.objectContaining({ code: 'invalid-option', message: `Expected \`options\` to be an object, got ${shown}` }),
      );
    }
  });

  it.each([
    [undefined, '`undefined` (undefined)'],
    ['', '`""` (string)'],
    [' ', '`" "` (string)'],
    [7, '`7` (number)'],
    [null, '`null` (null)'],
    ['a\ud800', '`"a\\ud800"` (string)'],
  ])('`scope`, not %j', (scope, shown) => {
    expect(refusal({ scope })).toBe(`Expected \`scope\` to be the name of this consumer, got ${shown}`);
  });

  it.each([
    [undefined, '`undefined` (undefined)'],
    ['message-id', '`"message-id"` (string)'],
    [{}, '`[object Object]` (object)'],
  ])('`key`, as a function, not %j: there is no default', (key, shown) => {
    expect(refusal({ key })).toBe(`Expected \`key\` to be a key strategy such as header('message-id') or body((o) => o.id), got ${shown}`);
  });

  it.each([
    [undefined, '`undefined` (undefined)'],
    [null, '`null` (null)'],
    [{}, '`[object Object]` (object)'],
    [{ claim: () => {}, settle: () => {}, extend: () => {} }, '`[object Object]` (object)'],
  ])('`store`, with its methods, not %j', (given, shown) => {
    expect(refusal({ store: given })).toBe(`Expected \`store\` to be a DedupStore or a TransactionalStore, got ${shown}`);
  });

  it('the handler', () => {
    expect(() => createReceiver({ scope: 'test', store, key: messageId() }, undefined as never)).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: 'Expected `handler` to be a function, got `undefined` (undefined)' }),
    );
  });
});

describe('`guarantee`', () => {
  const both = { ...store, ...transactions };

  it('is the best of the store by default', () => {
    expect(settings()).toMatchObject({ guarantee: 'leased' });
    expect(settings({ store: transactions })).toMatchObject({ guarantee: 'transactional' });
    expect(settings({ store: both })).toMatchObject({ guarantee: 'transactional' });
  });

  it('is any that the store offers', () => {
    for (const guarantee of ['transactional', 'leased', 'fenced'])
      expect(settings({ store: both, guarantee })).toMatchObject({ guarantee });
    expect(settings({ guarantee: 'fenced' })).toMatchObject({ guarantee: 'fenced' });
  });

  it('is refused if the store does not offer it', () => {
    expect(refusal({ guarantee: 'transactional' })).toBe(
      "Expected `guarantee` to be 'leased' or 'fenced', got `\"transactional\"` (string)",
    );
    expect(refusal({ store: transactions, guarantee: 'leased' })).toBe(
      'Expected `guarantee` to be \'transactional\', got `"leased"` (string)',
    );
    expect(refusal({ guarantee: 'exactly-once' })).toContain("'leased' or 'fenced'");
  });

  it('follows from the methods of a store, also those of its class', () => {
    class Store {
      claim() {}
      settle() {}
      extend() {}
      purge() {}
      unit() {}
    }
    expect([isDedupStore(new Store()), isTransactionalStore(new Store())]).toEqual([true, true]);
    expect([isDedupStore(store), isTransactionalStore(store)]).toEqual([true, false]);
    expect([isDedupStore(null), isTransactionalStore(undefined)]).toEqual([false, false]);
  });
});

describe('options with few values', () => {
  it.each([
    ['onMismatch', 'dead-letter', ['dead-letter', 'retry']],
    ['onTooOld', 'dead-letter', ['dead-letter', 'process']],
    ['onStoreDown', 'retry', ['retry', 'run']],
  ])('`%s` is %s by default, and one of %j', (name, byDefault, allowed) => {
    expect(settings()[name]).toBe(byDefault);
    for (const value of allowed) expect(settings({ [name]: value })[name]).toBe(value);
    expect(refusal({ [name]: 'ack' })).toBe(
      `Expected \`${name}\` to be ${allowed.map((each) => `'${each}'`).join(' or ')}, got \`"ack"\` (string)`,
    );
    expect(refusal({ [name]: null })).toContain('got `null` (null)');
  });

  it('`onStoreDown` can be `run` only where duplicates are possible anyway', () => {
    for (const options of [{ guarantee: 'fenced' }, { store: transactions }]) {
      expect(settings({ ...options, onStoreDown: 'retry' })['onStoreDown']).toBe('retry');
      expect(refusal({ ...options, onStoreDown: 'run' })).toBe('Expected `onStoreDown` to be \'retry\', got `"run"` (string)');
    }
  });

  it('`results` is false by default, and true or false', () => {
    expect(settings()['results']).toBe(false);
    expect(settings({ results: true })['results']).toBe(true);
    expect(refusal({ results: 'no' })).toBe('Expected `results` to be true or false, got `"no"` (string)');
  });
});

describe('options that are objects or functions', () => {
  it('`codec` is JSON by default, and needs both ways', () => {
    const codec = { encode: () => '', decode: () => 1 };
    expect(settings()['codec']).toBe(jsonCodec);
    expect(settings({ codec })['codec']).toBe(codec);
    expect(refusal({ codec: { encode: () => '' } })).toBe(
      'Expected `codec` to be a codec with `encode` and `decode`, got `[object Object]` (object)',
    );
  });

  it("`world` is the machine's own by default, and needs a clock and a random", () => {
    const world = virtualWorld();
    expect(settings()['world']).toBe(realWorld);
    expect(settings({ world })['world']).toBe(world);
    expect(refusal({ world: {} })).toBe('Expected `world.clock` to be a clock with `now`, `wall` and `after`, got `undefined` (undefined)');
    expect(refusal({ world: { clock: world.clock } })).toBe(
      'Expected `world.random` to be a random with `number` and `token`, got `undefined` (undefined)',
    );
  });

  it('`on` is nothing by default, and has functions', () => {
    const on = { received() {}, busy: undefined };
    expect(settings()['on']).toEqual({});
    expect(settings({ on })['on']).toBe(on);
    expect(refusal({ on: { received: 'log' } })).toBe('Expected `on.received` to be a function, got `"log"` (string)');
    expect(refusal({ on: 7 })).toBe('Expected `on` to be hooks by event name, got `7` (number)');
  });

  it('`schema` is a Standard Schema', () => {
    const schema = { '~standard': { version: 1, vendor: 'test', validate: (value: unknown) => ({ value }) } };
    expect(settings()['schema']).toBeUndefined();
    expect(settings({ schema })['schema']).toBe(schema);
    expect(settings({ schema: Object.assign(() => {}, schema) })['schema']).toBeTypeOf('function');
    for (const wrong of [{ parse: () => {} }, null, 'Order', { '~standard': {} }]) {
      expect(refusal({ schema: wrong })).toContain('Expected `schema` to be a Standard Schema, such as one of zod 4, got');
    }
  });

  it('`decode` is a function', () => {
    expect(refusal({ decode: 'json' })).toBe('Expected `decode` to be a function, got `"json"` (string)');
  });

  it('`fingerprint` is checked by createReceiver', () => {
    expect(() => createReceiver({ scope: 'test', store, key: messageId(), fingerprint: true as never }, () => {})).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining('Expected `fingerprint` to be') }),
    );
  });
});

describe('the decoding of bodies, if no other is given', () => {
  const decode = (body: unknown) => (settings()['decode'] as (message: object) => unknown)({ id: 'm', headers: {}, body });

  it('reads text and bytes as JSON', () => {
    expect(decode('{"a":1}')).toEqual({ a: 1 });
    expect(decode(new TextEncoder().encode('{"ü":1}'))).toEqual({ ü: 1 });
    expect(decode(Buffer.from('null'))).toBeNull();
  });

  it('takes everything else as it is', () => {
    const body = { a: 1 };
    expect(decode(body)).toBe(body);
    expect(decode(undefined)).toBeUndefined();
  });

  it('refuses what is no JSON, and bytes that are no UTF-8, rather than reading something else', () => {
    expect(() => decode('')).toThrow(SyntaxError);
    expect(() => decode('{a}')).toThrow(SyntaxError);
    expect(() => decode(new Uint8Array([0x22, 0xff, 0x22]))).toThrow(TypeError);
    // A character that is cut off leaves nothing behind for the next message.
    expect(() => decode(new Uint8Array([0x22, 0xe2, 0x82]))).toThrow(TypeError);
    expect(decode(new TextEncoder().encode('"\u20ac"'))).toBe('\u20ac');
  });
});

describe('what goes with steps and with publishing', () => {
  it('an outbox is one, and is there in transactional mode only', () => {
    const outbox = { publish: async () => {} };
    const expected = 'Expected `outbox` to be an outbox, in transactional mode, got';
    expect(settings()['outbox']).toBeUndefined();
    expect(settings({ store: transactions, outbox })['outbox']).toBe(outbox);
    expect(refusal({ outbox })).toContain(expected);
    expect(refusal({ store: transactions, outbox: {} })).toContain(expected);
  });

  it('retired steps are a list of names, and none by default', () => {
    expect(settings()['retiredSteps']).toEqual([]);
    expect(settings({ retiredSteps: ['charge'] })['retiredSteps']).toEqual(['charge']);
    for (const retiredSteps of ['charge', ['charge', 7]]) {
      expect(refusal({ retiredSteps })).toContain('Expected `retiredSteps` to be a list of names, got');
    }
  });
});
