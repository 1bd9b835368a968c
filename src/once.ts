import { expectOptions, ReceiverError, refuseOption } from './errors.ts';
import type { FingerprintOption } from './fingerprint.ts';
import type { Message, Verdict } from './message.ts';
import type { CommonOptions } from './options.ts';
import { createReceiver } from './receiver.ts';
import type { DedupStore } from './store.ts';

/** Options of `once`. */
export interface OnceOptions<Args extends readonly any[]> extends CommonOptions {
  readonly store: DedupStore;
  /** What makes two calls the same call. */
  readonly key: (...args: Args) => string | readonly string[];
  /** What has to be equal between two calls with the same key. @default nothing is compared */
  readonly fingerprint?: (...args: Args) => unknown;
  /** After this time the call is given up, and its claim ends with its lease. @default 300_000 */
  readonly handlerTimeoutMs?: number;
}

type AnyFunction = (...args: any[]) => unknown;

/** A function that runs once per key, with the same arguments and `this`. */
export type Once<Fn extends AnyFunction> = (this: ThisParameterType<Fn>, ...args: Parameters<Fn>) => Promise<Awaited<ReturnType<Fn>>>;

/** Wraps a function, as middleware or as a standard (TC39) method decorator. It may have more parameters than the key is made of. */
export type OnceWrapper<Args extends readonly any[]> = <Fn extends (...args: [...Args, ...any[]]) => unknown>(
  next: Fn,
  context?: ClassMethodDecoratorContext,
) => Once<Fn>;

/**
 * Makes any function of a worker run once per key, `leased`: the first call's result is stored and returned to every later call, in every
 * process that shares the store. Concurrent calls wait for the first one, for `waitMs`.
 *
 * ```ts
 * const charge = once({ store, scope: 'charge', key: (order: Order) => order.id }, (order) => gateway.charge(order));
 * const middleware = once({ store, scope: 'jobs', key: (job: Job) => job.id });   // (next) => (job) => …
 * class Worker { @once({ store, scope: 'mail', key: (to: string) => to }) async greet(to: string) {} }
 * ```
 *
 * All functions that one `once(options)` wraps share its scope: give each its own. Results go through the codec: what JSON can't hold is an error, and a Date comes back as text.
 * A call that fails is forgotten and can be made again, up to `maxAttempts` times; a `TerminalError` is final.
 *
 * @throws from the made function: what `fn` throws; ReceiverError `busy` (still running, `retryAfterMs` says when to come back), `parked`,
 * `mismatch`, `invalid-key`, `not-canonical`, `store`, `codec`, `claim-lost`, `handler-timeout`, `stopped`, `nested`
 */
export function once<Args extends any[], Result, This = unknown>(
  options: OnceOptions<Args>,
  fn: (this: This, ...args: Args) => Result,
): Once<(this: This, ...args: Args) => Result>;
export function once<Args extends any[]>(options: OnceOptions<Args>): OnceWrapper<Args>;
export function once(options: OnceOptions<any[]>, fn?: AnyFunction): unknown {
  return fn ? wrap(options, fn) : (next: AnyFunction, context?: ClassMethodDecoratorContext) => wrap(options, next, context);
}

interface Call {
  readonly self: unknown;
  readonly args: readonly unknown[];
}

function wrap(options: OnceOptions<any[]>, fn: AnyFunction, context?: ClassMethodDecoratorContext): AnyFunction {
  expectOptions(options, 'an object');
  // Legacy decorators (`experimentalDecorators`) are given an object first, and middleware of some frameworks an index second.
  const kind = typeof context === 'object' ? context.kind : 'method';
  if (typeof fn !== 'function' || kind !== 'method')
    refuseOption('fn', 'a function, or a method with a standard (TC39) decorator', kind === 'method' ? fn : kind);
  const { key, fingerprint, ...common } = options;
  if (fingerprint !== undefined && typeof fingerprint !== 'function')
    refuseOption('fingerprint', 'a function of the arguments', fingerprint);
  const compare: FingerprintOption = fingerprint ? (call) => fingerprint(...(call as Call).args) : false;
  const receiver = createReceiver(
    {
      waitMs: 30_000,
      ...common,
      guarantee: 'leased',
      key: typeof key === 'function' ? (_: Message, call: unknown) => key(...(call as Call).args) : key,
      fingerprint: compare,
      concurrency: Number.POSITIVE_INFINITY,
      results: true,
    },
    ({ self, args }: Call) => fn.apply(self, [...args]),
  );
  async function onced(this: unknown, ...args: unknown[]): Promise<unknown> {
    const message: Message = { id: `${options.scope}()`, body: { self: this, args } satisfies Call, headers: {} };
    const [verdict] = await receiver.process([{ message }]);
    return resultOf(verdict!, options.scope);
  }
  return Object.defineProperty(onced, 'name', { value: fn.name, configurable: true });
}

/** What a verdict means to the caller of a function. */
export function resultOf(verdict: Verdict, scope: string): unknown {
  if (verdict.action === 'ack') return verdict.result;
  const name = JSON.stringify(scope);
  if (verdict.action === 'dead-letter') {
    const { reason, detail, error } = verdict;
    if (reason === 'undecodable') {
      throw new ReceiverError('not-canonical', `The fingerprint of ${name} can't be taken: ${detail}`, { cause: error });
    }
    if (error !== undefined) throw error;
    if (reason === 'mismatch') throw otherArguments(name);
    throw new ReceiverError('parked', `${name} was given up for this key (${reason}): ${detail}`);
  }
  const { reason, afterMs: retryAfterMs, error } = verdict;
  switch (reason) {
    case 'busy':
      throw new ReceiverError('busy', `${name} is running for this key in another worker`, { retryAfterMs });
    case 'store':
      throw new ReceiverError('store', `${name} can't reach its store, or doesn't know what has become of a write`, {
        cause: error,
        retryAfterMs,
      });
    case 'fenced':
    case 'expired':
      throw new ReceiverError('claim-lost', `${name} lost its claim while it ran; another worker may have taken over`, {
        cause: error,
        retryAfterMs,
      });
    case 'stopped':
      throw new ReceiverError('stopped', `${name} has been stopped`, { retryAfterMs });
    case 'mismatch':
      throw otherArguments(name);
    case 'timeout':
      throw new ReceiverError('handler-timeout', `${name} ran too long and was given up`, { cause: error, retryAfterMs });
    default:
      throw error;
  }
}

const otherArguments = (name: string): ReceiverError =>
  new ReceiverError('mismatch', `${name} was called before with this key and other arguments`);
