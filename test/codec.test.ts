import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Codec, encodeResult, jsonCodec } from '../src/codec.ts';

const codecError = (message: string) => expect.objectContaining({ code: 'codec', message });
const unencodable = (why: string) => codecError(`Expected the handler's result to be encodable: ${why}`);

const roundTrip = (result: unknown) => jsonCodec.decode(jsonCodec.encode(result));

describe('the JSON codec', () => {
  it.each([[undefined], [null], [''], ['text'], [0], [false], [[]], [{}], [{ a: [{ b: null }, 'ü', 1.5] }], ['lone \ud800 surrogate']])(
    'gives back %j as it was',
    (result) => {
      expect(roundTrip(result)).toStrictEqual(result);
    },
  );

  it('gives back any JSON data as it was', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(roundTrip(value)).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });

  it('tells undefined from null and from an empty text', () => {
    expect(new Set([undefined, null, ''].map((result) => jsonCodec.encode(result))).size).toBe(3);
  });

  it('changes what its documentation says it changes: a Date into text, and members that are undefined are left out', () => {
    expect(roundTrip({ at: new Date(0), b: undefined })).toStrictEqual({ at: '1970-01-01T00:00:00.000Z' });
  });

  it.each<[string, unknown, string]>([
    ['NaN', { n: Number.NaN }, 'NaN'],
    ['Infinity', [Number.POSITIVE_INFINITY], 'Infinity'],
    ['a bigint', 1n, 'a bigint'],
    ['a nested bigint', { list: [{ n: 1n }] }, 'a bigint'],
    ['a function', () => 1, 'a function'],
    ['a method', { run() {} }, 'a function'],
    ['a symbol', Symbol('s'), 'a symbol'],
    ['a Map', { m: new Map([[1, 2]]) }, 'a Map'],
    ['a Set', new Set([1]), 'a Set'],
  ])('refuses %s, which JSON would change in silence', (_, result, what) => {
    expect(() => encodeResult(jsonCodec, 1_000, result)).toThrow(unencodable(`TypeError: JSON can't hold ${what}`));
  });

  it('refuses a circle', () => {
    const circle: Record<string, unknown> = {};
    circle['self'] = circle;
    expect(() => encodeResult(jsonCodec, 1_000, circle)).toThrow(
      expect.objectContaining({ code: 'codec', message: expect.stringContaining('circular'), cause: expect.any(TypeError) }),
    );
  });

  it('refuses nesting that overflows the stack, as an error with a code', () => {
    const deep = JSON.parse('['.repeat(200_000) + ']'.repeat(200_000));
    expect(() => encodeResult(jsonCodec, 1_000_000, deep)).toThrow(expect.objectContaining({ code: 'codec' }));
  });
});

describe('encodeResult', () => {
  it('gives the text of the codec', () => {
    expect(encodeResult(jsonCodec, 100, { a: 1 })).toBe('{"a":1}');
    expect(encodeResult(jsonCodec, 100, undefined)).toBe('');
  });

  it('measures in bytes, the limit included', () => {
    expect(encodeResult(jsonCodec, 6, 'éé')).toBe('"éé"');
    expect(() => encodeResult(jsonCodec, 5, 'éé')).toThrow(codecError("Expected the handler's result to be at most 5 bytes, got 6"));
  });

  it('refuses a codec that gives no text', () => {
    const bytes = { encode: () => new Uint8Array(1), decode: () => 1 } as unknown as Codec;
    expect(() => encodeResult(bytes, 100, 1)).toThrow(codecError('Expected the codec to return a string, got object'));
    expect(() => encodeResult(jsonCodec, 100, { toJSON: () => undefined })).toThrow(
      codecError('Expected the codec to return a string, got undefined'),
    );
  });

  it('keeps what the codec threw as the cause, whatever it is', () => {
    const thrown = Object.create(null);
    const broken: Codec = {
      encode: () => {
        throw thrown;
      },
      decode: () => 1,
    };
    expect(() => encodeResult(broken, 100, 1)).toThrow(
      expect.objectContaining({ code: 'codec', message: expect.stringContaining('a value that has no text'), cause: thrown }),
    );
  });
});
