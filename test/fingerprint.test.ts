import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FingerprintOption, fingerprinter, fingerprintOf } from '../src/fingerprint.ts';
import type { Message } from '../src/message.ts';

const message: Message = { id: 'm', body: '', headers: { trace: 't' } };

const fingerprint = (option: FingerprintOption, payload: unknown) => fingerprinter(option)(payload, message);

/** Whether two payloads pass for the same message. */
const same = (option: FingerprintOption, a: unknown, b: unknown) => fingerprint(option, a) === fingerprint(option, b);

const bytes = (text: string) => new TextEncoder().encode(text);

describe('the fingerprint of a payload', () => {
  it('is 22 characters of base64url', () => {
    for (const payload of [{ a: 1 }, 'text', null, undefined, bytes('text')]) expect(fingerprintOf(payload)).toMatch(/^[A-Za-z0-9_-]{22}$/);
  });

  it('stays the same between versions, because stores keep it', () => {
    // SHA-256 of `4:json;13:{"a":1,"b":2};`, as openssl gives it.
    expect(fingerprintOf({ b: 2, a: 1 })).toBe('66ajq6AcO0u2OmCqJ5ruPO');
    // And of `9:undefined;`.
    expect(fingerprintOf(undefined)).toBe('FA_opV6bgwfd69U8AEnSHQ');
  });

  it('does not depend on the order of members', () => {
    expect(same(undefined, { a: 1, b: { c: 2, d: 3 } }, { b: { d: 3, c: 2 }, a: 1 })).toBe(true);
  });

  it('depends on the order of items', () => {
    expect(same(undefined, [1, 2], [2, 1])).toBe(false);
  });

  it('leaves out members that are undefined', () => {
    expect(same(undefined, { a: 1, b: undefined }, { a: 1 })).toBe(true);
    expect(same(undefined, { a: 1, b: null }, { a: 1 })).toBe(false);
  });

  it('differs for values that look the same and have another type', () => {
    const values = [
      1,
      '1',
      true,
      'true',
      null,
      'null',
      undefined,
      'undefined',
      [],
      {},
      '',
      '{}',
      '[]',
      [null],
      ['1'],
      [1],
      { a: 1 },
      '{"a":1}',
      { a: '1' },
      bytes(''),
      bytes('1'),
      bytes('{"a":1}'),
      bytes('"1"'),
      bytes('undefined'),
      bytes('4:json;1:1;'),
      bytes('9:undefined;'),
    ];
    expect(new Set(values.map(fingerprintOf)).size).toBe(values.length);
  });

  it('is the same for bytes in a Buffer and in a Uint8Array, wherever they lie', () => {
    const inside = new Uint8Array([9, ...bytes('abc'), 9]).subarray(1, 4);
    expect(fingerprintOf(Buffer.from('abc'))).toBe(fingerprintOf(inside));
    expect(fingerprintOf(bytes('abd'))).not.toBe(fingerprintOf(inside));
  });

  it('is the same for a payload in its class and for its JSON, where the class has a `toJSON`', () => {
    expect(same(undefined, { at: new Date(0) }, { at: '1970-01-01T00:00:00.000Z' })).toBe(true);
  });

  it('is refused for what has no canonical form', () => {
    expect(() => fingerprintOf({ m: new Map() })).toThrow(expect.objectContaining({ code: 'not-canonical' }));
  });

  it('differs for any two payloads that are different data', () => {
    const value = fc.jsonValue({ maxDepth: 2 });
    fc.assert(
      fc.property(value, value, (a, b) => {
        fc.pre(JSON.stringify(a) !== JSON.stringify(b));
        // Equal only if the order of members is all the difference, and then the number of characters is the same.
        if (JSON.stringify(a).length !== JSON.stringify(b).length) expect(fingerprintOf(a)).not.toBe(fingerprintOf(b));
      }),
    );
  });
});

describe('omit', () => {
  it('leaves out a member', () => {
    const option = { omit: ['sentAt'] };
    expect(same(option, { id: 'a', sentAt: 1 }, { id: 'a', sentAt: 2 })).toBe(true);
    expect(same(option, { id: 'a', sentAt: 1 }, { id: 'a' })).toBe(true);
    expect(same(option, { id: 'a', sentAt: 1 }, { id: 'b', sentAt: 1 })).toBe(false);
  });

  it('leaves out a nested member, and nothing beside it', () => {
    const option = { omit: ['meta.trace.id'] };
    const payload = (id: number, span: number, trace = 0) => ({ meta: { trace: { id, span }, other: 1 }, trace: { id: trace } });
    expect(same(option, payload(1, 5), payload(2, 5))).toBe(true);
    expect(same(option, payload(1, 5), payload(1, 6))).toBe(false);
    expect(same(option, payload(1, 5, 1), payload(1, 5, 2))).toBe(false);
  });

  it('leaves out several members', () => {
    const option = { omit: ['a', 'b.c', 'b.d'] };
    expect(same(option, { a: 1, b: { c: 1, d: 1, e: 1 } }, { a: 2, b: { c: 2, d: 2, e: 1 } })).toBe(true);
    expect(same(option, { a: 1, b: { c: 1, d: 1, e: 1 } }, { a: 1, b: { c: 1, d: 1, e: 2 } })).toBe(false);
  });

  it('leads through every item of an array', () => {
    const option = { omit: ['items.readAt'] };
    expect(
      same(
        option,
        {
          items: [
            { id: 1, readAt: 1 },
            { id: 2, readAt: 1 },
          ],
        },
        {
          items: [
            { id: 1, readAt: 2 },
            { id: 2, readAt: 3 },
          ],
        },
      ),
    ).toBe(true);
    expect(same(option, { items: [{ id: 1, readAt: 1 }] }, { items: [{ id: 2, readAt: 1 }] })).toBe(false);
    expect(same({ omit: ['readAt'] }, [{ id: 1, readAt: 1 }], [{ id: 1, readAt: 2 }])).toBe(true);
  });

  it('keeps items: a number in a path is no index', () => {
    expect(same({ omit: ['items.0'] }, { items: ['a'] }, { items: ['b'] })).toBe(false);
    expect(same({ omit: ['length'] }, ['a'], ['b'])).toBe(false);
  });

  it('changes nothing where the path leads nowhere', () => {
    const option = { omit: ['a.b.c', 'x'] };
    for (const payload of [{ a: 1 }, { a: null }, { a: { b: 'text' } }, 'text', 7, null, [], undefined]) {
      expect(fingerprint(option, payload)).toBe(fingerprintOf(payload));
    }
    expect(fingerprint(option, bytes('{"x":1}'))).toBe(fingerprintOf(bytes('{"x":1}')));
  });

  it('treats `__proto__` as any other name, and changes no prototype', () => {
    const payload = (polluted: number) => JSON.parse(`{"id":"a","__proto__":{"polluted":${polluted},"kept":1}}`);
    expect(same({ omit: ['__proto__'] }, payload(1), { id: 'a' })).toBe(true);
    expect(same({ omit: ['__proto__.polluted'] }, payload(1), payload(2))).toBe(true);
    expect(same({ omit: ['__proto__.polluted'] }, payload(1), { id: 'a' })).toBe(false);
    expect(same({ omit: ['id'] }, payload(1), payload(2))).toBe(false);
    expect(same({ omit: ['constructor', 'toString', '__proto__.toString'] }, { id: 'a' }, { id: 'a' })).toBe(true);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it('finds nothing in what objects inherit', () => {
    expect(fingerprint({ omit: ['constructor.name', 'toString.length', '__proto__.constructor'] }, { id: 'a' })).toBe(
      fingerprintOf({ id: 'a' }),
    );
  });

  it('leaves the payload itself alone', () => {
    const payload = Object.freeze({ id: 'a', meta: Object.freeze({ sentAt: 1 }), list: Object.freeze([Object.freeze({ sentAt: 1 })]) });
    fingerprint({ omit: ['id', 'meta.sentAt', 'list.sentAt'] }, payload);
    expect(payload).toEqual({ id: 'a', meta: { sentAt: 1 }, list: [{ sentAt: 1 }] });
  });

  it('is applied to what `toJSON` gives', () => {
    const payload = (sentAt: number) => ({ hidden: sentAt, toJSON: () => ({ id: 'a', sentAt }) });
    expect(same({ omit: ['sentAt'] }, payload(1), { id: 'a' })).toBe(true);
    expect(same({ omit: ['meta.sentAt'] }, { meta: payload(1) }, { meta: payload(2) })).toBe(true);
  });

  it('does not make data of a class instance, whose private part it would pass over', () => {
    class Order {
      readonly #amount: number;
      readonly sentAt = 1;
      constructor(amount: number) {
        this.#amount = amount;
      }
      get amount() {
        return this.#amount;
      }
    }
    expect(() => fingerprint({ omit: ['sentAt'] }, new Order(5))).toThrow(expect.objectContaining({ code: 'not-canonical' }));
  });
});

describe('the other options', () => {
  it('a function chooses what is compared, with the message at hand', () => {
    const option: FingerprintOption = (payload, { headers }) => [(payload as { amount: number }).amount, headers['trace']];
    expect(same(option, { amount: 5, at: 1 }, { amount: 5, at: 2 })).toBe(true);
    expect(same(option, { amount: 5 }, { amount: 6 })).toBe(false);
    expect(fingerprint(option, { amount: 5 })).toBe(fingerprintOf([5, 't']));
  });

  it('a function may choose nothing at all', () => {
    expect(same(() => undefined, { a: 1 }, { a: 2 })).toBe(true);
    expect(fingerprint(() => undefined, { a: 1 })).not.toBe('');
  });

  it('false compares nothing, not even what has no canonical form', () => {
    expect(fingerprint(false, { a: 1n })).toBe('');
  });

  it.each<[unknown, string]>([
    [null, 'got `null` (null)'],
    [true, 'got `true` (boolean)'],
    ['sentAt', 'got `"sentAt"` (string)'],
    [{}, 'got `[object Object]` (object)'],
    [{ omit: 'sentAt' }, 'got `[object Object]` (object)'],
    [['sentAt'], 'got `sentAt` (object)'],
  ])('%j is refused', (option, got) => {
    expect(() => fingerprinter(option as FingerprintOption)).toThrow(
      expect.objectContaining({
        code: 'invalid-option',
        message: `Expected \`fingerprint\` to be \`{ omit: [paths] }\`, a function or false, ${got}`,
      }),
    );
  });

  it.each([[7], [''], [null], [['a']]])('the path %j is refused', (path) => {
    expect(() => fingerprinter({ omit: ['a', path as string] })).toThrow(
      expect.objectContaining({
        code: 'invalid-option',
        message: expect.stringContaining('Expected `fingerprint.omit` to be member paths, got'),
      }),
    );
  });
});
