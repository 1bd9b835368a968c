import { AsyncLocalStorage } from 'node:async_hooks';
import { encodeResult } from './codec.ts';
import { digest } from './digest.ts';
import { describeError, ReceiverError, RetryAfter, TerminalError, thrownValue } from './errors.ts';
import type { BaseContext } from './guarantee.ts';
import type { Job } from './job.ts';
import type { Lease } from './lease.ts';
import type { DeadLetterReason, Message, RetryReason } from './message.ts';
import type { ReceiverSettings } from './options.ts';
import { validate } from './schema.ts';

/** The user's handler, its types checked at `createReceiver`. */
export type AnyHandler = (payload: any, context: any) => unknown;

/** What a handler gave: its result, and the text to store if results are kept. */
export interface Handled {
  readonly result: unknown;
  readonly encoded: string | undefined;
  readonly durationMs: number;
}

/** What is to become of a message whose handler failed. */
export type Failure =
  | { readonly park: DeadLetterReason; readonly detail: string; readonly error: unknown }
  | { readonly retry: RetryReason; readonly afterMs: number; readonly counted: boolean; readonly error: unknown };

/** Thrown around the handler, not by it: the message can't succeed, for this reason. */
class Unfit extends Error {
  readonly reason: DeadLetterReason;

  constructor(reason: DeadLetterReason, cause: unknown) {
    super(describeError(cause), { cause });
    this.reason = reason;
  }
}

interface Running {
  readonly owner: object;
  readonly key: string;
  readonly outer: Running | undefined;
  ended: boolean;
}

const running = new AsyncLocalStorage<Running>();

/**
 * Whether the caller is inside a running handler of `owner`, with `key` if one is given. A handler that waits for itself would wait for
 * ever. What it has started and left behind, such as a timer, is outside once it has ended.
 */
export function isInside(owner: object, key?: string): boolean {
  for (let at = running.getStore(); at; at = at.outer) {
    if (!at.ended && at.owner === owner && (key === undefined || at.key === key)) return true;
  }
  return false;
}

/** Beside the payload: what every handler gets, and `tx` or `fence` where there is one. */
class HandlerContext implements BaseContext {
  readonly message: Message;
  readonly attempt: number;
  readonly key: (name: string) => string;
  declare readonly tx?: unknown;
  declare readonly fence?: number;
  readonly #lease: Lease;

  constructor(job: Job, lease: Lease, own: Own) {
    this.message = job.message;
    this.attempt = own.attempt;
    this.key = (name) => digest(['downstream', job.key, name], 32);
    if ('tx' in own) this.tx = own.tx;
    if (own.fence !== undefined) this.fence = own.fence;
    this.#lease = lease;
  }

  get signal(): AbortSignal {
    return this.#lease.signal;
  }
}

/** What a handler gets by the way that it is run. */
interface Own {
  readonly attempt: number;
  readonly tx?: unknown;
  readonly fence?: number;
}

/** Runs the handler: schema, handler, encoding of the result. Rejects with whatever goes wrong; `failureOf` says what follows. */
export async function runHandler(
  owner: object,
  settings: ReceiverSettings,
  handler: AnyHandler,
  job: Job,
  lease: Lease,
  own: Own,
): Promise<Handled> {
  const { clock } = settings.world;
  const inside: Running = { owner, key: job.key, outer: running.getStore(), ended: false };
  // The schema counts too: one that asks a service may hang like any handler.
  lease.limit(settings.handlerTimeoutMs);
  try {
    const payload = settings.schema ? await fit('invalid-payload', validate(settings.schema, job.payload)) : job.payload;
    const context = new HandlerContext(job, lease, own);
    const startedAt = clock.now();
    const result = await running.run(inside, async () => handler(payload, context));
    const durationMs = clock.now() - startedAt;
    if (!settings.results) return { result, encoded: undefined, durationMs };
    const encoded = await fit('unencodable-result', async () => encodeResult(settings.codec, settings.maxResultBytes, result));
    return { result, encoded, durationMs };
  } finally {
    inside.ended = true;
    lease.limit(Number.POSITIVE_INFINITY);
  }
}

/** Decides by the class of the error, then by what happened to the lease, then by the attempts that are left. */
export function failureOf(settings: ReceiverSettings, thrown: unknown, attempt: number, lease: Lease): Failure {
  const error = thrownValue(thrown);
  if (error instanceof Unfit) return { park: error.reason, detail: error.message, error: error.cause };
  if (error instanceof TerminalError) return { park: 'terminal', detail: describeError(error), error };
  const aborted = lease.aborted?.code;
  // A stopping receiver is not the message's fault.
  if (aborted === 'stopped') return { retry: 'stopped', afterMs: 0, counted: false, error };
  if (attempt >= settings.maxAttempts) return { park: 'max-attempts', detail: describeError(error), error };
  const afterMs =
    error instanceof RetryAfter
      ? error.afterMs
      : error instanceof ReceiverError && error.retryAfterMs !== undefined
        ? error.retryAfterMs
        : backoffMs(settings, attempt);
  const retry = aborted === 'handler-timeout' ? 'timeout' : aborted === 'claim-lost' ? 'fenced' : 'failed';
  return { retry, afterMs, counted: true, error };
}

/** Exponential, less up to a half by chance, so that messages that failed together don't come back together. */
function backoffMs(settings: ReceiverSettings, attempt: number): number {
  const { firstMs, maxMs } = settings.backoff;
  const full = Math.min(maxMs, firstMs * 2 ** (attempt - 1));
  return Math.round(full * (1 - settings.world.random.number() / 2));
}

async function fit<T>(reason: DeadLetterReason, task: Promise<T> | (() => Promise<T>)): Promise<T> {
  try {
    return await (typeof task === 'function' ? task() : task);
  } catch (error) {
    // A refusal is final. A schema that breaks, such as one that asks a service, is a failure like any other, and is tried again.
    throw error instanceof ReceiverError ? new Unfit(reason, error) : error;
  }
}
