/** Every kind of error that this library makes. Outcomes such as duplicate or busy are values, not errors. */
export const errorCodes = [
  /** An option is not what it has to be. Thrown at construction. */
  'invalid-option',
  /** A message has no usable key. */
  'invalid-key',
  /** A value has no canonical JSON form. */
  'not-canonical',
  /** The schema refused the payload. */
  'invalid-payload',
  /** A result could not be encoded, or a stored one not decoded. */
  'codec',
  /** The claim was lost: its lease ended, or somebody else took it or its partition. The reason of `ctx.signal`. */
  'claim-lost',
  /** The handler ran longer than `handlerTimeoutMs`. The reason of `ctx.signal`. */
  'handler-timeout',
  /** The receiver is stopping. The reason of `ctx.signal`, and thrown by `once` functions that are called afterwards. */
  'stopped',
  /** Another call with the same key is running, and did not finish in time. Thrown by `once` functions. */
  'busy',
  /** The key was parked. Thrown by `once` functions. */
  'parked',
  /** Same key, other arguments. Thrown by `once` functions. */
  'mismatch',
  /** The store can't be used as it is: corrupt, read-only, full, of another schema version, or answering nonsense. */
  'store',
  /** A handler went on after an error that had aborted its part of the transaction. Thrown by a unit's savepoint: the handler's failure. */
  'aborted-transaction',
  /** A commit whose outcome could not be found out. */
  'commit-in-doubt',
  /** The store would forget sooner than the broker stops redelivering. */
  'retention-too-short',
  /** The broker's settings make the promise impossible. */
  'broker',
  /** A handler called its own receiver, or a `once` function itself with the same key, and would wait for itself. */
  'nested',
  /** What was to be published can't be a message, or there is no transaction to publish it in. */
  'invalid-message',
  /** A step that can't be: its name is no name or is taken, there are too many, it was begun after its handler had ended. */
  'invalid-step',
  /** An earlier attempt has done steps that this one does not ask for: the code has changed. */
  'steps-changed',
  /** A step was begun by an attempt that died, and whether it has happened can't be found out. */
  'unknown-outcome',
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** The one error class of this library. Tell errors apart by `code`. */
export class ReceiverError extends Error {
  override readonly name = 'ReceiverError';
  readonly code: ErrorCode;
  /** Milliseconds after which another try makes sense, where that is known. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown; retryAfterMs?: number }) {
    super(message, options && 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.retryAfterMs = options?.retryAfterMs;
  }
}

/** Whether somebody else owns the message, or its partition, by now. */
export function isClaimLost(error: unknown): boolean {
  return error instanceof ReceiverError && error.code === 'claim-lost';
}

/** Thrown by a handler: this message can't ever succeed. It is parked at once, with this error's text as its detail. */
export class TerminalError extends Error {
  override readonly name: string = 'TerminalError';
}

/** Thrown by a handler: try again after `afterMs`, instead of the receiver's own backoff. The attempt counts. */
export class RetryAfter extends Error {
  override readonly name: string = 'RetryAfter';
  readonly afterMs: number;

  constructor(afterMs: number, message = `Try again after ${afterMs} ms`, options?: ErrorOptions) {
    super(message, options);
    this.afterMs = expectNumber('afterMs', afterMs, { atLeast: 0, atMost: Number.MAX_SAFE_INTEGER });
  }
}

/**
 * The text of anything that was thrown, one line, at most 500 characters. Every store can keep it: no control characters, which
 * Postgres refuses, and no lone surrogates. Never throws, whatever was thrown.
 */
export function describeError(error: unknown): string {
  return printable(
    textOf(() => (error instanceof Error ? `${error.name}: ${error.message}` : String(error))),
    500,
  );
}

/** What was thrown, what caused that, and so on; ten at most, because an error may be its own cause. */
export function causesOf(error: unknown): Readonly<Record<string, unknown>>[] {
  const causes: Record<string, unknown>[] = [];
  for (let at = error; typeof at === 'object' && at !== null && causes.length < 10; at = causes.at(-1)!['cause'])
    causes.push(at as Record<string, unknown>);
  return causes;
}

/** What was thrown, or an error in its place if it can't even be asked for its class: a revoked Proxy. */
export function thrownValue(thrown: unknown): unknown {
  try {
    Object.getPrototypeOf(Object(thrown));
    return thrown;
  } catch (cause) {
    return new Error('Something was thrown that cannot be looked at', { cause });
  }
}

/** Text that every store and log can take: one line, well-formed, without control characters, cut to a length. */
export function printable(text: string, maxLength: number): string {
  return text
    .slice(0, maxLength)
    .replace(/[\s\p{Cc}]+/gu, ' ')
    .toWellFormed();
}

/** A value as shown to people in an error. Never throws: JSON text can make objects that `String` can't convert. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  return typeof value === 'function' ? 'a function' : textOf(() => String(value));
}

function textOf(make: () => string): string {
  try {
    return make();
  } catch {
    return 'a value that has no text';
  }
}

/** Throws `invalid-option` in the one form that all options share. */
export function refuseOption(name: string, expected: string, got: unknown): never {
  throw new ReceiverError(
    'invalid-option',
    `Expected \`${name}\` to be ${expected}, got \`${show(got)}\` (${got === null ? 'null' : typeof got})`,
  );
}

/** The same of what a function is called with. */
export function refuseArgument(of: string, expected: string, got: unknown): never {
  throw new ReceiverError(
    'invalid-option',
    `Expected \`${of}\` to be given ${expected}, got \`${show(got)}\` (${got === null ? 'null' : typeof got})`,
  );
}

/** Checks that options were given at all. `shape`: those that have no default. */
export function expectOptions(options: unknown, shape: string): void {
  if (typeof options !== 'object' || options === null) refuseOption('options', shape, options);
}

/** Checks a number option. `Infinity` passes only where `atMost` is left out and `integer` is not true. */
export function expectNumber(
  name: string,
  value: unknown,
  limits: { atLeast: number; atMost?: number; integer?: boolean | 'or Infinity' },
): number {
  const { atLeast, atMost = Number.POSITIVE_INFINITY, integer } = limits;
  const inRange = typeof value === 'number' && value >= atLeast && value <= atMost;
  if (inRange && (!integer || Number.isSafeInteger(value) || (integer === 'or Infinity' && value === Number.POSITIVE_INFINITY)))
    return value;
  const kind = integer ? 'a whole number' : 'a number';
  const range = limits.atMost === undefined ? `of ${atLeast} or more` : `from ${atLeast} to ${atMost}`;
  return refuseOption(name, `${kind} ${range}${integer === 'or Infinity' ? ', or Infinity' : ''}`, value);
}
