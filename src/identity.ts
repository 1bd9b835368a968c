import { describeError, ReceiverError } from './errors.ts';
import { type FingerprintOption, fingerprinter } from './fingerprint.ts';
import type { Identity } from './job.ts';
import { type KeyStrategy, keyOf } from './key.ts';
import type { Message } from './message.ts';

/**
 * Makes the function that recognises messages: decodes the body once, then takes key and fingerprint from it.
 *
 * @throws from the made function: ReceiverError `invalid-key`, or whatever decoding throws
 */
export function identifier(options: {
  readonly scope: string;
  readonly key: KeyStrategy;
  readonly decode: (message: Message) => unknown;
  readonly fingerprint: FingerprintOption;
}): (message: Message) => Identity {
  const fingerprint = fingerprinter(options.fingerprint);
  return (message) => {
    const payload = options.decode(message);
    const id = idOf(options.key, message, payload);
    return { id, payload, key: keyOf(options.scope, id), fingerprint: fingerprint(payload, message) };
  };
}

function idOf(strategy: KeyStrategy, message: Message, payload: unknown): string | readonly string[] {
  try {
    return strategy(message, payload);
  } catch (cause) {
    if (cause instanceof ReceiverError && cause.code === 'invalid-key') throw cause;
    throw new ReceiverError('invalid-key', `Expected the key strategy to return an id, it threw ${describeError(cause)}`, { cause });
  }
}
