import { ReceiverError } from './errors.ts';

/** Turns a handler's result into text for the store, and back for duplicates. */
export interface Codec {
  encode(result: unknown): string;
  decode(text: string): unknown;
}

/** JSON. `undefined` is kept. What JSON would change in silence (NaN, bigint, functions, symbols) is refused. */
export const jsonCodec: Codec = {
  encode(result) {
    if (result === undefined) return '';
    return JSON.stringify(result, (_, value) => {
      if (typeof value === 'bigint' || typeof value === 'function' || typeof value === 'symbol' || (typeof value === 'number' && !Number.isFinite(value))) {
        throw new TypeError(`JSON can't hold ${typeof value === 'number' ? value : `a ${typeof value}`}`);
      }
      return value;
    });
  },
  decode: (text) => (text === '' ? undefined : JSON.parse(text)),
};

/** Encodes with a codec and a limit. @throws ReceiverError `codec` */
export function encodeResult(codec: Codec, maxBytes: number, result: unknown): string {
  let text: string;
  try {
    text = codec.encode(result);
  } catch (cause) {
    throw new ReceiverError('codec', `Expected the handler's result to be encodable: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
  if (typeof text !== 'string') throw new ReceiverError('codec', `Expected the codec to return a string, got ${typeof text}`);
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes) throw new ReceiverError('codec', `Expected the handler's result to be at most ${maxBytes} bytes, got ${bytes}`);
  return text;
}
