import { describeError, ReceiverError } from './errors.ts';

/** Turns a handler's result into text for the store, and back for duplicates. */
export interface Codec {
  encode(result: unknown): string;
  decode(text: string): unknown;
}

/** JSON. `undefined` is kept. What JSON would change in silence (NaN, bigint, functions, symbols, Map, Set) is refused. */
export const jsonCodec: Codec = {
  encode(result) {
    if (result === undefined) return '';
    return JSON.stringify(result, (_, value) => {
      const unfit = unfitForJson(value);
      if (unfit) throw new TypeError(`JSON can't hold ${unfit}`);
      return value;
    });
  },
  decode: (text) => (text === '' ? undefined : JSON.parse(text)),
};

function unfitForJson(value: unknown): string | undefined {
  switch (typeof value) {
    case 'number':
      return Number.isFinite(value) ? undefined : String(value);
    case 'bigint':
    case 'function':
    case 'symbol':
      return `a ${typeof value}`;
    default:
      return value instanceof Map ? 'a Map' : value instanceof Set ? 'a Set' : undefined;
  }
}

/** Encodes with a codec and a limit. @throws ReceiverError `codec` */
export function encodeResult(codec: Codec, maxBytes: number, result: unknown, what = "the handler's result"): string {
  let text: string;
  try {
    text = codec.encode(result);
  } catch (cause) {
    throw new ReceiverError('codec', `Expected ${what} to be encodable: ${describeError(cause)}`, { cause });
  }
  if (typeof text !== 'string') throw new ReceiverError('codec', `Expected the codec to return a string, got ${typeof text}`);
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes) throw new ReceiverError('codec', `Expected ${what} to be at most ${maxBytes} bytes, got ${bytes}`);
  return text;
}
