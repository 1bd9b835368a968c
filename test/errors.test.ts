import { describe, expect, it } from 'vitest';
import {
  causesOf,
  describeError,
  errorCodes,
  expectNumber,
  ReceiverError,
  RetryAfter,
  refuseOption,
  show,
  TerminalError,
} from '../src/errors.ts';

const invalidOption = (message: string) => expect.objectContaining({ name: 'ReceiverError', code: 'invalid-option', message });

describe('ReceiverError', () => {
  it('keeps code, message and cause, and is an Error with its own name', () => {
    const cause = new Error('refused');
    const error = new ReceiverError('store', 'no answer', { cause });
    expect(error).toBeInstanceOf(Error);
    expect(String(error)).toBe('ReceiverError: no answer');
    expect(error).toMatchObject({ name: 'ReceiverError', code: 'store', message: 'no answer', retryAfterMs: undefined });
    expect(error.cause).toBe(cause);
  });

  it('keeps a cause that is undefined apart from no cause', () => {
    expect('cause' in new ReceiverError('store', 'text', { cause: undefined })).toBe(true);
    expect('cause' in new ReceiverError('store', 'text', { retryAfterMs: 5 })).toBe(false);
    expect('cause' in new ReceiverError('store', 'text')).toBe(false);
  });

  it('says when another try makes sense', () => {
    expect(new ReceiverError('busy', 'text', { retryAfterMs: 5 }).retryAfterMs).toBe(5);
  });

  it('has each code once', () => {
    expect(new Set(errorCodes).size).toBe(errorCodes.length);
  });
});

describe('the errors that handlers throw', () => {
  it('TerminalError has a name and keeps its cause', () => {
    const cause = new Error('why');
    const error = new TerminalError('never', { cause });
    expect(error).toMatchObject({ name: 'TerminalError', message: 'never', cause });
    expect(error).toBeInstanceOf(Error);
  });

  it('RetryAfter keeps its delay, its text and its cause', () => {
    const cause = new Error('why');
    expect(new RetryAfter(1_500)).toMatchObject({ name: 'RetryAfter', message: 'Try again after 1500 ms', afterMs: 1_500 });
    expect(new RetryAfter(0, 'at once', { cause })).toMatchObject({ message: 'at once', afterMs: 0, cause });
  });

  it.each([[-1], [Number.NaN], [Number.POSITIVE_INFINITY], ['5'], [undefined]])('RetryAfter refuses the delay %s', (afterMs) => {
    expect(() => new RetryAfter(afterMs as number)).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining('Expected `afterMs` to be a number from 0 to') }),
    );
  });
});

describe('describeError', () => {
  it.each<[string, unknown, string]>([
    ['an error', new TypeError('x is not a function'), 'TypeError: x is not a function'],
    ['a text', 'just text', 'just text'],
    ['undefined', undefined, 'undefined'],
    ['null', null, 'null'],
    ['an object', { code: 1 }, '[object Object]'],
    ['a symbol', Symbol('s'), 'Symbol(s)'],
    ['several lines', new Error('one\r\n\ttwo\u2028three'), 'Error: one two three'],
    ['control characters, which Postgres refuses', new Error('a\0b\u001b[31mc\u0085d'), 'Error: a b [31mc d'],
    ['a lone surrogate', new Error('a\ud800b'), 'Error: a\ufffdb'],
    ['an object that has no text', Object.create(null), 'a value that has no text'],
    ['an object whose JSON breaks its text', JSON.parse('{"toString":null,"valueOf":null}'), 'a value that has no text'],
    ['an error whose message has no text', Object.assign(new Error(), { message: Object.create(null) }), 'a value that has no text'],
    ['an error whose message throws', Object.defineProperty(new Error(), 'message', { get: () => fail() }), 'a value that has no text'],
  ])('gives one line of text for %s', (_, thrown, text) => {
    expect(describeError(thrown)).toBe(text);
  });

  it('gives at most 500 characters, and never half a character', () => {
    expect(describeError(new Error('x'.repeat(1_000)))).toHaveLength(500);
    const cut = describeError(`x${'😂'.repeat(400)}`);
    expect(cut).toHaveLength(500);
    expect(cut.isWellFormed()).toBe(true);
  });
});

describe('causesOf', () => {
  it('gives what was thrown, and each cause of it', () => {
    const [root, middle] = [{ code: 'ECONNRESET' }, new Error('middle')];
    middle.cause = root;
    const error = new Error('outer', { cause: middle });
    expect(causesOf(error)).toEqual([error, middle, root]);
  });

  it.each([['text'], [undefined], [null], [7], [() => {}]])('gives nothing of %s', (thrown) => {
    expect(causesOf(thrown)).toEqual([]);
    expect(causesOf(new Error('outer', { cause: thrown }))).toHaveLength(1);
  });

  it('ends after ten, where an error is its own cause', () => {
    const error = new Error('outer');
    error.cause = error;
    expect(causesOf(error)).toHaveLength(10);
  });
});

describe('refused options', () => {
  it.each<[unknown, string]>([
    ['text', '`"text"` (string)'],
    [7, '`7` (number)'],
    [undefined, '`undefined` (undefined)'],
    [null, '`null` (null)'],
    [() => 1, '`a function` (function)'],
    [[1, 2], '`1,2` (object)'],
    [Object.create(null), '`a value that has no text` (object)'],
  ])('are shown with their type: %#', (got, shown) => {
    expect(() => refuseOption('name', 'something else', got)).toThrow(
      invalidOption(`Expected \`name\` to be something else, got ${shown}`),
    );
  });

  it('are shown on one line', () => {
    expect(show('a\nb')).toBe(String.raw`"a\nb"`);
  });
});

describe('expectNumber', () => {
  it('takes numbers within the limits, the limits included', () => {
    expect(expectNumber('n', 1, { atLeast: 1, atMost: 3 })).toBe(1);
    expect(expectNumber('n', 3, { atLeast: 1, atMost: 3 })).toBe(3);
    expect(expectNumber('n', 1.5, { atLeast: 1 })).toBe(1.5);
  });

  it('takes Infinity only where there is no upper limit', () => {
    expect(expectNumber('n', Number.POSITIVE_INFINITY, { atLeast: 1 })).toBe(Number.POSITIVE_INFINITY);
    expect(expectNumber('n', Number.POSITIVE_INFINITY, { atLeast: 1, integer: 'or Infinity' })).toBe(Number.POSITIVE_INFINITY);
    expect(() => expectNumber('n', Number.POSITIVE_INFINITY, { atLeast: 1, atMost: 3 })).toThrow(
      invalidOption('Expected `n` to be a number from 1 to 3, got `Infinity` (number)'),
    );
    expect(() => expectNumber('n', Number.POSITIVE_INFINITY, { atLeast: 1, integer: true })).toThrow(
      invalidOption('Expected `n` to be a whole number of 1 or more, got `Infinity` (number)'),
    );
  });

  it.each<[unknown, Parameters<typeof expectNumber>[2], string]>([
    [0, { atLeast: 1 }, 'a number of 1 or more, got `0` (number)'],
    [4, { atLeast: 1, atMost: 3 }, 'a number from 1 to 3, got `4` (number)'],
    [Number.NaN, { atLeast: 1 }, 'a number of 1 or more, got `NaN` (number)'],
    ['5', { atLeast: 1 }, 'a number of 1 or more, got `"5"` (string)'],
    [5n, { atLeast: 1 }, 'a number of 1 or more, got `5` (bigint)'],
    [1.5, { atLeast: 1, integer: true }, 'a whole number of 1 or more, got `1.5` (number)'],
    [1.5, { atLeast: 1, integer: 'or Infinity' }, 'a whole number of 1 or more, or Infinity, got `1.5` (number)'],
    [2 ** 53, { atLeast: 1, integer: true }, 'a whole number of 1 or more, got `9007199254740992` (number)'],
  ])('refuses %s with %o', (value, limits, text) => {
    expect(() => expectNumber('n', value, limits)).toThrow(invalidOption(`Expected \`n\` to be ${text}`));
  });
});

function fail(): never {
  throw new Error('must not be seen');
}
