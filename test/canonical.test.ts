import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson } from '../src/canonical.ts';

const notCanonical = (got: string) => expect.objectContaining({ code: 'not-canonical', message: `Expected JSON data, got ${got}` });

/** The six vectors of cyberphone/json-canonicalization, inputs and outputs as JSON text. */
const vectors: Readonly<Record<string, readonly [input: string, output: string]>> = {
  arrays: ['[56, {"d": true, "10": null, "1": [ ]}]', '[56,{"1":[],"10":null,"d":true}]'],
  french: [
    '{"peach": "This sorting order", "péché": "is wrong according to French", "pêche": "but canonicalization MUST", "sin": "ignore locale"}',
    '{"peach":"This sorting order","péché":"is wrong according to French","pêche":"but canonicalization MUST","sin":"ignore locale"}',
  ],
  structures: [
    String.raw`{"1": {"f": {"f": "hi", "F": 5}, "\n": 56.0}, "10": {}, "": "empty", "a": {}, "111": [{"e": "yes", "E": "no"}], "A": {}}`,
    String.raw`{"":"empty","1":{"\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}`,
  ],
  unicode: [String.raw`{"Unnormalized Unicode": "A\u030a"}`, '{"Unnormalized Unicode":"A\u030a"}'],
  values: [
    String.raw`{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}`,
    String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
  ],
  weird: [
    String.raw`{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\u000a": "Newline", "1": "One", "\u0080": "Control\u007f",
      "\ud83d\ude02": "Smiley", "\u00f6": "Latin Small Letter O With Diaeresis", "\ufb33": "Hebrew Letter Dalet With Dagesh",
      "</script>": "Browser Challenge"}`,
    String.raw`{"\n":"Newline","\r":"Carriage Return","1":"One","</script>":"Browser Challenge",` +
      '"\u0080":"Control\u007f","ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign","\u{1f602}":"Smiley",' +
      '"\ufb33":"Hebrew Letter Dalet With Dagesh"}',
  ],
};

/** RFC 8785 appendix B: the bits of an IEEE 754 double, and its text. */
const numbers: readonly (readonly [bits: string, text: string])[] = [
  ['0000000000000000', '0'],
  ['8000000000000000', '0'],
  ['0000000000000001', '5e-324'],
  ['8000000000000001', '-5e-324'],
  ['7fefffffffffffff', '1.7976931348623157e+308'],
  ['ffefffffffffffff', '-1.7976931348623157e+308'],
  ['4340000000000000', '9007199254740992'],
  ['c340000000000000', '-9007199254740992'],
  ['4430000000000000', '295147905179352830000'],
  ['44b52d02c7e14af5', '9.999999999999997e+22'],
  ['44b52d02c7e14af6', '1e+23'],
  ['44b52d02c7e14af7', '1.0000000000000001e+23'],
  ['444b1ae4d6e2ef4e', '999999999999999700000'],
  ['444b1ae4d6e2ef4f', '999999999999999900000'],
  ['444b1ae4d6e2ef50', '1e+21'],
  ['3eb0c6f7a0b5ed8c', '9.999999999999997e-7'],
  ['3eb0c6f7a0b5ed8d', '0.000001'],
  ['41b3de4355555553', '333333333.3333332'],
  ['41b3de4355555554', '333333333.33333325'],
  ['41b3de4355555555', '333333333.3333333'],
  ['41b3de4355555556', '333333333.3333334'],
  ['41b3de4355555557', '333333333.33333343'],
  ['becbf647612f3696', '-0.0000033333333333333333'],
  ['43143ff3c1cb0959', '1424953923781206.2'],
];

const double = (bits: string) => Buffer.from(bits, 'hex').readDoubleBE();

describe('RFC 8785', () => {
  for (const [name, [input, output]] of Object.entries(vectors)) {
    it(`gives the published text for the vector "${name}"`, () => {
      expect(canonicalJson(JSON.parse(input))).toBe(output);
    });
  }

  for (const [bits, text] of numbers) {
    it(`writes the number ${bits} as ${text}`, () => {
      expect(canonicalJson(double(bits))).toBe(text);
    });
  }

  it('writes every ASCII character as JSON.stringify does, alone and among others, in values and in names', () => {
    for (let code = 0; code < 128; code++) {
      const character = String.fromCharCode(code);
      for (const text of [character, `a${character}b`]) {
        expect(canonicalJson(text)).toBe(JSON.stringify(text));
        expect(canonicalJson({ [text]: 1 })).toBe(`{${JSON.stringify(text)}:1}`);
      }
    }
  });

  it('refuses the two numbers of appendix B that JSON has no text for', () => {
    expect(() => canonicalJson(double('7fffffffffffffff'))).toThrow(notCanonical('NaN'));
    expect(() => canonicalJson(double('7ff0000000000000'))).toThrow(notCanonical('Infinity'));
  });
});

describe('values that JavaScript has and JSON has not', () => {
  const circular: Record<string, unknown> = {};
  circular['self'] = { deeper: [circular] };
  class Order {
    readonly id = 'a';
  }
  const refused: readonly (readonly [what: string, value: unknown, got: string])[] = [
    ['-Infinity', { n: Number.NEGATIVE_INFINITY }, '-Infinity'],
    ['a bigint', { n: 1n }, 'bigint'],
    ['undefined', undefined, 'undefined'],
    ['a function', { f() {} }, 'function'],
    ['a symbol', [Symbol('s')], 'symbol'],
    ['a lone high surrogate', ['a\ud800'], 'a string with a lone surrogate'],
    ['a lone low surrogate', ['\udc00a'], 'a string with a lone surrogate'],
    ['nothing but a lone surrogate', ['\ud800'], 'a string with a lone surrogate'],
    ['a member name with a lone surrogate', { 'a\ud800': 1 }, 'a member name with a lone surrogate'],
    ['a Map', { m: new Map() }, 'an instance of Map'],
    ['a Set', new Set([1]), 'an instance of Set'],
    ['a RegExp', /a/, 'an instance of RegExp'],
    ['bytes inside a value', { b: new Uint8Array(2) }, 'an instance of Uint8Array'],
    ['a boxed string', Object('a'), 'an instance of String'],
    ['an instance of a class', { order: new Order() }, 'an instance of Order'],
    ['a promise that somebody forgot to await', Promise.resolve(1), 'an instance of Promise'],
    ['a circle', circular, 'nesting deeper than 500'],
  ];
  for (const [what, value, got] of refused) {
    it(`refuses ${what}`, () => {
      expect(() => canonicalJson(value)).toThrow(notCanonical(got));
    });
  }

  it('refuses nesting that would overflow the stack, by name', () => {
    expect(() => canonicalJson(JSON.parse('['.repeat(100_000) + ']'.repeat(100_000)))).toThrow(notCanonical('nesting deeper than 500'));
    expect(() => canonicalJson(JSON.parse(`${'{"a":'.repeat(600)}1${'}'.repeat(600)}`))).toThrow(notCanonical('nesting deeper than 500'));
    const endless = { toJSON: (): unknown => endless };
    expect(() => canonicalJson(endless)).toThrow(notCanonical('nesting deeper than 500'));
  });

  it('takes nesting up to 500', () => {
    const text = '['.repeat(500) + ']'.repeat(500);
    expect(canonicalJson(JSON.parse(text))).toBe(text);
  });

  it('writes objects without a prototype, and objects of another realm', async () => {
    const { runInNewContext } = await import('node:vm');
    expect(canonicalJson(Object.assign(Object.create(null), { b: 1, a: 2 }))).toBe('{"a":2,"b":1}');
    expect(canonicalJson(runInNewContext('({ b: [1], a: 2 })'))).toBe('{"a":2,"b":[1]}');
  });

  it('writes what `toJSON` gives, a Date as its text', () => {
    expect(canonicalJson({ at: new Date(0) })).toBe('{"at":"1970-01-01T00:00:00.000Z"}');
    expect(canonicalJson({ toJSON: () => ({ b: 1, a: 2 }) })).toBe('{"a":2,"b":1}');
  });

  it('writes a member of that name once', () => {
    expect(canonicalJson({ undefined: 1 })).toBe('{"undefined":1}');
  });

  it('leaves out members that are undefined, and writes null for undefined items, as JSON.stringify does', () => {
    expect(canonicalJson({ b: undefined, a: [undefined, 1] })).toBe('{"a":[null,1]}');
  });

  it('treats `__proto__` as any other name', () => {
    expect(canonicalJson(JSON.parse('{"b":1,"__proto__":{"a":1}}'))).toBe('{"__proto__":{"a":1},"b":1}');
    expect(canonicalJson(JSON.parse('{"constructor":1}'))).toBe('{"constructor":1}');
  });
});

describe('for all JSON data', () => {
  it('the order of members does not matter', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), fc.infiniteStream(fc.nat(1_000)), (value, chance) => {
        const shuffled = shuffle(value, () => chance.next().value);
        expect(canonicalJson(shuffled)).toBe(canonicalJson(value));
      }),
      { numRuns: 500 },
    );
  });

  it('the text reads back as the same data, so different data have different texts', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5, stringUnit: 'binary' }), (value) => {
        // JSON has one zero.
        expect(isDeepStrictEqual(JSON.parse(canonicalJson(value)), JSON.parse(JSON.stringify(value)))).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it('two texts are equal only for equal data', () => {
    const small = fc.jsonValue({ maxDepth: 2, noUnicodeString: true });
    fc.assert(
      fc.property(small, small, (a, b) => {
        const same = isDeepStrictEqual(JSON.parse(JSON.stringify(a)), JSON.parse(JSON.stringify(b)));
        expect(canonicalJson(a) === canonicalJson(b)).toBe(same);
      }),
      { numRuns: 1_000 },
    );
  });
});

/** The same data with the members of every object put in in another order. */
function shuffle(value: unknown, next: () => number): unknown {
  if (Array.isArray(value)) return value.map((item) => shuffle(item, next));
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).map(([name, member]) => ({ name, member: shuffle(member, next), at: next() }));
  const shuffled = {};
  for (const { name, member } of members.sort((a, b) => a.at - b.at)) {
    Object.defineProperty(shuffled, name, { value: member, enumerable: true, configurable: true, writable: true });
  }
  return shuffled;
}

describe('odd objects', () => {
  it('with many members in any order are written in the one order', () => {
    const names = Array.from({ length: 100 }, (_, i) => `n${(i * 37) % 100}`);
    const [one, other] = [names, names.toReversed()].map((each) => canonicalJson(Object.fromEntries(each.map((name) => [name, 1]))));
    expect(one).toBe(other);
    expect(one).toBe(
      `{${names
        .toSorted()
        .map((name) => `"${name}":1`)
        .join(',')}}`,
    );
  });

  it('are not taken for others with members that look alike, however many have been seen before', () => {
    const names = Array.from({ length: 40 }, (_, i) => String.fromCharCode(97 + (i % 4)).repeat(1 + (i >> 2)));
    for (let round = 0; round < 2; round++) {
      for (const one of names) {
        for (const other of names) {
          if (one >= other) continue;
          const text = `{"${one}":1,"${other}":2}`;
          expect(canonicalJson({ [other]: 2, [one]: 1 })).toBe(text);
          expect(canonicalJson({ [one]: 1, [other]: 2 })).toBe(text);
        }
      }
    }
  });

  it('with the same members, some of them undefined, are told apart', () => {
    const member = (a: unknown, b: unknown, c: unknown) => canonicalJson({ c, b, a });
    expect([member(1, 2, 3), member(undefined, 2, 3), member(1, undefined, 3), member(1, 2, undefined)]).toEqual([
      '{"a":1,"b":2,"c":3}',
      '{"b":2,"c":3}',
      '{"a":1,"c":3}',
      '{"a":1,"b":2}',
    ]);
    expect(member(undefined, undefined, undefined)).toBe('{}');
  });

  it('with a member called toJSON that is no function are data', () => {
    expect(canonicalJson({ toJSON: 5 })).toBe('{"toJSON":5}');
  });

  it('of a class without a name are refused all the same', () => {
    const nameless = Object.create(Object.create(Object.create(null)));
    expect(() => canonicalJson(Object.create(nameless))).toThrow(notCanonical('an instance of a class'));
  });

  it('nest up to the limit, and no deeper', () => {
    const nested = (depth: number) => JSON.parse('['.repeat(depth) + ']'.repeat(depth));
    expect(canonicalJson(nested(501))).toHaveLength(1_002);
    expect(() => canonicalJson(nested(502))).toThrow(notCanonical('nesting deeper than 500'));
  });
});
