import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { identifier } from '../src/identity.ts';
import {
  attribute,
  body,
  cloudEvent,
  contentHash,
  header,
  type KeyStrategy,
  keyOf,
  maxIdBytes,
  messageId,
  scope,
  tenant,
} from '../src/key.ts';
import type { Message } from '../src/message.ts';

const invalidKey = (text: string) => expect.objectContaining({ code: 'invalid-key', message: expect.stringContaining(text) });

function message(more: Partial<Message> = {}): Message {
  return { id: 'broker-id', body: '{}', headers: {}, ...more };
}

/** What a strategy takes for the id. */
function idOf(strategy: KeyStrategy, more: Partial<Message> = {}, payload: unknown = {}): string | readonly string[] {
  return strategy(message(more), payload);
}

/** The key as a receiver makes it. */
function keyFor(strategy: KeyStrategy, more: Partial<Message> = {}, scopeName = 'test'): string {
  return identifier({ scope: scopeName, key: strategy, decode: (m) => m.body, fingerprint: false })(message(more)).key;
}

/** Ids as hostile JSON or plain JavaScript can make them. */
const bad = (id: unknown): KeyStrategy => body(() => id as string);

describe('header', () => {
  it('reads the header, whatever the case of its name', () => {
    expect(idOf(header('Message-Id'), { headers: { 'message-id': 'a' } })).toBe('a');
    expect(idOf(header('message-id'), { headers: { 'MESSAGE-ID': 'a' } })).toBe('a');
    expect(idOf(header('message-id'), { headers: { 'message-id': 'a' } })).toBe('a');
  });

  it('prefers the name in the very same case', () => {
    expect(idOf(header('Id'), { headers: { id: 'other', ID: 'another', Id: 'a' } })).toBe('a');
  });

  it('passes over a header without a value', () => {
    expect(idOf(header('Id'), { headers: { Id: undefined, ID: undefined, id: 'a' } })).toBe('a');
    expect(() => idOf(header('id'), { headers: { id: undefined } })).toThrow(invalidKey('a header "id", got none'));
  });

  it('says which header is missing', () => {
    expect(() => idOf(header('message-id'), { headers: { undefined: 'a' } })).toThrow(invalidKey('a header "message-id", got none'));
    expect(() => idOf(header('message-id'), { headers: { id: 'a' } })).toThrow(
      invalidKey('Expected the message to have a header "message-id", got none'),
    );
  });

  it.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf'])(
    'takes nothing that objects inherit for the header `%s`',
    (name) => {
      expect(() => idOf(header(name))).toThrow(invalidKey('got none'));
      expect(() => idOf(header(name.toUpperCase()))).toThrow(invalidKey('got none'));
      expect(() => idOf(attribute(name))).toThrow(invalidKey('got none'));
    },
  );

  it('reads a header that is really called `__proto__` or `constructor`', () => {
    const headers = JSON.parse('{"__proto__":"a","constructor":"b"}');
    expect(idOf(header('__PROTO__'), { headers })).toBe('a');
    expect(idOf(header('__proto__'), { headers })).toBe('a');
    expect(idOf(attribute('constructor'), { headers })).toBe('b');
  });

  it('reads headers that have no prototype', () => {
    expect(idOf(header('ID'), { headers: Object.assign(Object.create(null), { id: 'a' }) })).toBe('a');
  });
});

describe('attribute', () => {
  it('reads the attribute with exactly this name', () => {
    expect(idOf(attribute('Id'), { headers: { id: 'other', Id: 'a' } })).toBe('a');
    expect(() => idOf(attribute('Id'), { headers: { id: 'other' } })).toThrow(
      invalidKey('Expected the message to have an attribute "Id", got none'),
    );
  });
});

describe('body, messageId and contentHash', () => {
  it('body takes the id from the payload, one part or several', () => {
    expect(
      idOf(
        body((o: { id: string }) => o.id),
        {},
        { id: 'a' },
      ),
    ).toBe('a');
    expect(
      idOf(
        body((o: { shop: string; id: string }) => [o.shop, o.id]),
        {},
        { shop: 's', id: 'a' },
      ),
    ).toEqual(['s', 'a']);
  });

  it("messageId takes the broker's id", () => {
    expect(idOf(messageId())).toBe('broker-id');
  });

  it('contentHash is the same for equal data in another order, and for no other data', () => {
    const hash = contentHash();
    expect(idOf(hash, {}, { a: 1, b: [2] })).toBe(idOf(hash, {}, { b: [2], a: 1 }));
    expect(idOf(hash, {}, { a: 1, b: [2] })).not.toBe(idOf(hash, {}, { a: 1, b: [3] }));
    expect(idOf(hash, { id: 'x', headers: { h: 'y' } }, 'text')).toBe(idOf(hash, {}, 'text'));
  });

  it('contentHash refuses what has no canonical form, as an invalid key', () => {
    expect(() => keyFor(contentHash(), { body: { n: Number.NaN } })).toThrow(invalidKey('Expected JSON data, got NaN'));
  });
});

describe('a strategy that is made of the wrong thing', () => {
  const wrong: [string, () => KeyStrategy, string][] = [
    ['header without a name', () => header(undefined as never), 'Expected `header` to be given the name of a header, got `undefined`'],
    ['header with a blank name', () => header(' '), 'Expected `header` to be given the name of a header, got `" "`'],
    ['attribute without a name', () => attribute(7 as never), 'Expected `attribute` to be given the name of an attribute, got `7`'],
    ['body with a name', () => body('id' as never), 'Expected `body` to be given a function such as (o) => o.id, got `"id"`'],
    ['tenant of text', () => tenant('a' as never, messageId()), 'Expected `tenant` to be given two key strategies, got `"a"`'],
    ['tenant without a key', () => tenant(header('a'), undefined as never), 'Expected `tenant` to be given two key strategies, got'],
    ['scope without a key', () => scope('a', undefined as never), 'Expected `scope` to be given a name and a key strategy, got'],
    ['scope of a blank name', () => scope(' ', messageId()), 'Expected `scope` to be given a name and a key strategy, got `" "`'],
    ['scope of a number', () => scope(7 as never, messageId()), 'Expected `scope` to be given a name and a key strategy, got `7`'],
  ];

  it.each(wrong)('%s is refused at once: else each message would be given up as poison', (_, make, text) => {
    expect(make).toThrow(expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining(text) }));
  });
});

describe('cloudEvent', () => {
  const structured = { specversion: '1.0', type: 't', source: '/shop', id: 'e1' };

  it.each([
    ['ce_source', 'ce_id'],
    ['ce-source', 'ce-id'],
    ['CE-Source', 'Ce-Id'],
  ])('reads binary mode from %s and %s', (source, id) => {
    expect(idOf(cloudEvent(), { headers: { [source]: '/shop', [id]: 'e1' } }, 'bytes')).toEqual(['/shop', 'e1']);
  });

  it('reads structured mode from the payload', () => {
    expect(idOf(cloudEvent(), {}, structured)).toEqual(['/shop', 'e1']);
  });

  it('gives an event the same key in both modes', () => {
    const binary = { headers: { ce_source: '/shop', ce_id: 'e1' } };
    expect(keyFor(cloudEvent(), binary)).toBe(keyFor(cloudEvent(), { body: structured }));
  });

  it('tells apart two sources that use one id', () => {
    expect(keyFor(cloudEvent(), { body: structured })).not.toBe(keyFor(cloudEvent(), { body: { ...structured, source: '/other' } }));
  });

  it.each<[string, Partial<Message>, unknown, string]>([
    ['binary without its source', { headers: { ce_id: 'e1' } }, {}, 'CloudEvent source'],
    ['binary without its id', { headers: { ce_source: '/shop' } }, {}, 'CloudEvent id'],
    ['structured without its source', {}, { ...structured, source: undefined }, 'CloudEvent source'],
    ['structured without its id', {}, { ...structured, id: null }, 'CloudEvent id'],
    ['structured without its specversion', {}, { source: '/shop', id: 'e1' }, 'CloudEvent source'],
    ['structured with a specversion that is no text', {}, { ...structured, specversion: 1 }, 'CloudEvent source'],
    ['none at all', {}, 'text', 'CloudEvent source'],
    ['null', {}, null, 'CloudEvent source'],
    ['a list of events', {}, [structured], 'CloudEvent source'],
  ])('refuses an event that is %s', (_, more, payload, what) => {
    expect(() => idOf(cloudEvent(), more, payload)).toThrow(invalidKey(`Expected the message to have a ${what}, got none`));
  });

  it('never mixes the id of one mode with the source of the other', () => {
    expect(() => idOf(cloudEvent(), { headers: { ce_id: 'stray' } }, structured)).toThrow(invalidKey('CloudEvent source'));
    expect(() => idOf(cloudEvent(), { headers: { 'ce-source': '/stray' } }, structured)).toThrow(invalidKey('CloudEvent id'));
  });

  it('refuses an id that is not a string, or blank', () => {
    expect(() => keyFor(cloudEvent(), { body: { ...structured, id: 7 } })).toThrow(invalidKey('to be a string, got 7 (number)'));
    expect(() => keyFor(cloudEvent(), { headers: { ce_source: '/shop', ce_id: ' ' } })).toThrow(invalidKey('not empty'));
  });
});

describe('a key', () => {
  it('is 32 characters of base64url', () => {
    expect(keyOf('scope', 'id')).toMatch(/^[A-Za-z0-9_-]{32}$/);
    expect(keyOf('scope', ['a', 'b'])).toMatch(/^[A-Za-z0-9_-]{32}$/);
  });

  it('stays the same between versions, because stores keep it', () => {
    // SHA-256 of `7:billing;2:o1;`, as openssl gives it.
    expect(keyOf('billing', 'o1')).toBe('ZN8CpYutfoFUjZP_XPq81d4Sf5v1z7W9');
  });

  it('is the same for one part and for an array of one part', () => {
    expect(keyOf('scope', ['id'])).toBe(keyOf('scope', 'id'));
  });

  it('tells apart scopes, ids, and where the border between parts is', () => {
    const keys = [
      keyOf('a', 'bc'),
      keyOf('ab', 'c'),
      keyOf('a', ['b', 'c']),
      keyOf('a', ['bc', 'c']),
      keyOf('a', ['b', '2:bc']),
      keyOf('a', 'b;1:c'),
      keyOf('a', 'b:c'),
      keyOf('a', 'B:c'),
      keyOf('a', 'e\u0301'),
      keyOf('a', '\u00e9'),
      keyOf('a', 'a\0b'),
      keyOf('a', 'a'),
      keyOf('a', 'a '),
    ];
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('differs for any two different sequences of parts', () => {
    const part = fc.oneof(fc.string({ minLength: 1, unit: 'binary' }), fc.constantFrom('a', 'b', 'ab', '1:a;', 'a;1:b', '2', ';', ':'));
    const sequence = fc.array(
      part.filter((text) => text.trim() !== ''),
      { minLength: 2, maxLength: 4 },
    );
    fc.assert(
      fc.property(sequence, sequence, (a, b) => {
        const same = JSON.stringify(a) === JSON.stringify(b);
        expect(keyOf(a[0]!, a.slice(1)) === keyOf(b[0]!, b.slice(1))).toBe(same);
      }),
      { numRuns: 2_000 },
    );
  });

  it('differs for texts that are cut at another place', () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 3, maxLength: 12, unit: fc.constantFrom('a', 'b', ':', ';', '1', '2') }),
        fc.nat(),
        fc.nat(),
        (text, m, n) => {
          const cut = (at: number) => [text.slice(0, 1 + (at % (text.length - 1))), text.slice(1 + (at % (text.length - 1)))] as const;
          const [first, second] = [cut(m), cut(n)];
          expect(keyOf(...first) === keyOf(...second)).toBe(first[0] === second[0]);
        },
      ),
      { numRuns: 2_000 },
    );
  });
});

describe('tenant and scope', () => {
  const id = body((o: { id: string | string[] }) => o.id);
  const byTenant = tenant(
    body((o: { tenant: string | string[] }) => o.tenant),
    id,
  );

  it('let two tenants use the same id', () => {
    expect(keyFor(byTenant, { body: { tenant: 't1', id: 'a' } })).not.toBe(keyFor(byTenant, { body: { tenant: 't2', id: 'a' } }));
    expect(keyFor(byTenant, { body: { tenant: 't1', id: 'a' } })).toBe(keyFor(byTenant, { body: { tenant: 't1', id: 'a' } }));
  });

  it('keep a tenant from reaching the ids of another', () => {
    expect(keyFor(byTenant, { body: { tenant: 'a', id: 'bc' } })).not.toBe(keyFor(byTenant, { body: { tenant: 'ab', id: 'c' } }));
    expect(keyFor(byTenant, { body: { tenant: ['a', 'b'], id: 'c' } })).not.toBe(
      keyFor(byTenant, { body: { tenant: 'a', id: ['b', 'c'] } }),
    );
  });

  it('compose without collisions', () => {
    const word = fc.constantFrom('a', 'b', 'ab', '1', '2', '1:a;');
    const some = fc.oneof(word, fc.array(word, { minLength: 1, maxLength: 3 }));
    const both = fc.record({ tenant: some, id: some });
    const normal = (value: string | string[]) => [value].flat();
    fc.assert(
      fc.property(both, both, (a, b) => {
        const same = JSON.stringify([normal(a.tenant), normal(a.id)]) === JSON.stringify([normal(b.tenant), normal(b.id)]);
        expect(keyFor(byTenant, { body: a }) === keyFor(byTenant, { body: b })).toBe(same);
      }),
      { numRuns: 2_000 },
    );
  });

  it('put a fixed name before the id, and can be nested', () => {
    const both = scope('eu', byTenant);
    const keys = [both, scope('us', byTenant), byTenant, scope('eu', id), id].map((each) =>
      keyFor(each, { body: { tenant: 't', id: 'a' } }),
    );
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('refuse a message without a tenant', () => {
    expect(() => keyFor(byTenant, { body: { id: 'a' } })).toThrow(invalidKey('to be a string, got undefined'));
    expect(() => keyFor(byTenant, { body: { tenant: '', id: 'a' } })).toThrow(invalidKey('not empty'));
    expect(() => keyFor(byTenant, { body: { tenant: [], id: 'a' } })).toThrow(invalidKey('at least one part'));
    expect(() => keyFor(tenant(header('tenant'), id), { body: { id: 'a' } })).toThrow(invalidKey('a header "tenant"'));
  });
});

describe('an id that can make no key', () => {
  it.each<[string, unknown, string]>([
    ['empty', '', 'to be a string that is not empty, got "" (string)'],
    ['blank', ' \t\n\u00a0', 'to be a string that is not empty'],
    ['a lone surrogate', 'a\ud800', 'well-formed Unicode'],
    ['a reversed pair of surrogates', '\udc00\ud800', 'well-formed Unicode'],
    ['a number', 7, 'to be a string, got 7 (number)'],
    ['NaN', Number.NaN, 'to be a string, got NaN (number)'],
    ['a bigint', 7n, 'to be a string, got 7 (bigint)'],
    ['undefined', undefined, 'to be a string, got undefined (undefined)'],
    ['null', null, 'to be a string, got null (object)'],
    ['true', true, 'to be a string, got true (boolean)'],
    ['a symbol', Symbol('a'), 'to be a string, got Symbol(a) (symbol)'],
    ['a function', () => 'a', 'to be a string, got a function (function)'],
    ['an object', { id: 'a' }, 'to be a string, got [object Object] (object)'],
    ['an object that has no text', Object.create(null), 'to be a string, got a value that has no text (object)'],
    [
      'an object whose JSON breaks its text',
      JSON.parse('{"toString":1,"valueOf":1}'),
      'to be a string, got a value that has no text (object)',
    ],
    ['an empty array', [], 'at least one part, got an empty array'],
    ['an array with an empty part', ['a', ''], 'to be a string that is not empty'],
    ['an array with a missing part', ['a', undefined], 'to be a string, got undefined'],
    ['an array with a hole', Object.assign(new Array(2), ['a']), 'to be a string, got undefined'],
    ['an array with a number', ['a', 7], 'to be a string, got 7'],
    ['an array in an array', [['a']], 'to be a string, got a (object)'],
    ['an array with a lone surrogate', ['a', '\ud800'], 'well-formed Unicode'],
    ['an array with an over-long part', ['a', 'x'.repeat(513)], 'at most 512 bytes long'],
  ])('is refused: %s', (_, id, text) => {
    expect(() => keyFor(bad(id))).toThrow(invalidKey(text));
  });

  it('is measured in bytes, not in characters', () => {
    expect(maxIdBytes).toBe(512);
    expect(keyOf('s', 'x'.repeat(512))).toMatch(/^.{32}$/);
    expect(() => keyOf('s', 'x'.repeat(513))).toThrow(invalidKey('(513 bytes)'));
    expect(keyOf('s', 'é'.repeat(256))).toMatch(/^.{32}$/);
    expect(() => keyOf('s', 'é'.repeat(257))).toThrow(invalidKey('(514 bytes)'));
    expect(keyOf('s', '€'.repeat(170))).toMatch(/^.{32}$/);
    expect(() => keyOf('s', '€'.repeat(171))).toThrow(invalidKey('(513 bytes)'));
    expect(() => keyOf('s', '😂'.repeat(129))).toThrow(invalidKey('(516 bytes)'));
  });

  it('is not repeated in full by the error, and forges no line of a log', () => {
    let text = '';
    try {
      keyOf('s', `a\nb${'x'.repeat(10_000)}`);
    } catch (error) {
      text = (error as Error).message;
    }
    expect(text.length).toBeLessThan(200);
    expect(text).toContain(String.raw`"a\nb`);
    expect(text).not.toContain('\n');
  });
});

describe('a strategy that throws', () => {
  it('is an invalid key, with what it threw as the cause', () => {
    const thrown = new TypeError("Cannot read properties of null (reading 'id')");
    const strategy = body(() => {
      throw thrown;
    });
    expect(() => keyFor(strategy)).toThrow(
      expect.objectContaining({
        code: 'invalid-key',
        message: `Expected the key strategy to return an id, it threw TypeError: ${thrown.message}`,
        cause: thrown,
      }),
    );
  });

  it('is an invalid key too if what it threw has no text', () => {
    const strategy = body(() => {
      throw Object.create(null);
    });
    expect(() => keyFor(strategy)).toThrow(invalidKey('it threw a value that has no text'));
  });
});
