import { encodeResult } from './codec.ts';
import { digest } from './digest.ts';
import type { StepSource } from './effects/attempt-journal.ts';
import type { StepsContext } from './effects/context.ts';
import { randomOf, uuidOf } from './effects/deterministic.ts';
import { type PublishContext, Publishing } from './effects/publishing.ts';
import { Run } from './effects/run.ts';
import { type RunSaga, sagaOf } from './effects/saga.ts';
import { type Step, stepOf } from './effects/step.ts';
import { describeError, ReceiverError, RetryAfter, TerminalError, thrownValue } from './errors.ts';
import type { BaseContext } from './guarantee.ts';
import { Running } from './inside.ts';
import type { Job } from './job.ts';
import type { Lease } from './lease.ts';
import type { DeadLetterReason, Message, RetryReason } from './message.ts';
import type { ReceiverSettings } from './options.ts';
import { type StandardSchema, validate } from './schema.ts';
import type { Key } from './store.ts';

/** The user's handler, its types checked at `createReceiver`. */
export type AnyHandler = (payload: any, context: any) => unknown;

/** What a handler gave: its result, and the text to store if results are kept. Times are of the monotonic clock. */
export interface Handled {
  readonly result: unknown;
  readonly encoded: string | undefined;
  readonly startedAt: number;
  readonly endedAt: number;
}

/** What went wrong in a handler or around it; `failureOf` says what follows. */
export interface Thrown {
  readonly error: unknown;
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

/** Beside the payload: what every handler gets, `tx` or `fence` where there is one, steps where there is a journal, `publish` with an outbox. */
class HandlerContext implements BaseContext, Partial<StepsContext>, Partial<PublishContext<string>> {
  readonly message: Message;
  readonly attempt: number;
  declare readonly tx?: unknown;
  declare readonly fence?: number;
  declare readonly publish?: PublishContext<string>['publish'];
  readonly #key: Key;
  readonly #lease: Lease;
  readonly #openRun: (() => Run) | undefined;
  readonly #publishing: Publishing | undefined;
  #run: Run | undefined;

  constructor(job: Job, lease: Lease, own: Own, settings: ReceiverSettings) {
    this.message = job.message;
    this.attempt = own.attempt;
    this.#key = job.key;
    if ('tx' in own) this.tx = own.tx;
    if ('tx' in own && settings.outbox) {
      this.#publishing = new Publishing(settings.outbox, own.tx, job.key);
      this.publish = this.#publishing.publish;
    }
    if (own.fence !== undefined) this.fence = own.fence;
    this.#lease = lease;
    const { steps } = own;
    this.#openRun = steps && (() => (this.#run ??= new Run({ ...steps, settings, lease, keyOf: this.key })));
  }

  get signal(): AbortSignal {
    return this.#lease.signal;
  }

  // Functions are made for those who ask, who may take them out of the context: most handlers use few of them, or have no journal for steps.
  get key(): (name: string) => string {
    return (name) => digest(['downstream', this.#key, name], 32);
  }

  get uuid(): (name: string) => string {
    return (name) => uuidOf(this.#key, name);
  }

  get random(): (name: string) => number {
    return (name) => randomOf(this.#key, name);
  }

  get step(): Step {
    return (this.#openRun && stepOf(this.#openRun())) as Step;
  }

  get saga(): RunSaga {
    return (this.#openRun && sagaOf(this.#openRun())) as RunSaga;
  }

  get now(): () => Promise<number> {
    return (this.#openRun && (() => this.#openRun!().now())) as () => Promise<number>;
  }

  /** Whether there is anything to `end`. */
  get hasBegun(): boolean {
    return this.#publishing !== undefined || this.#run !== undefined;
  }

  /** The handler has ended; so has what it has begun. */
  async end(failed: boolean): Promise<void> {
    try {
      await this.#publishing?.end(failed);
    } catch (error) {
      await this.#run?.end(true);
      throw error;
    }
    await this.#run?.end(failed);
  }
}

/** What a handler gets by the way that it is run. */
interface Own {
  readonly attempt: number;
  readonly tx?: unknown;
  readonly fence?: number;
  readonly steps?: StepSource | undefined;
}

/** Runs the handler: schema, handler, encoding of the result. Never rejects. Where nothing has to be waited for, nothing is. */
export function runHandler(
  owner: object,
  settings: ReceiverSettings,
  handler: AnyHandler,
  job: Job,
  lease: Lease,
  own: Own,
): Handled | Thrown | Promise<Handled | Thrown> {
  const run = new HandlerRun(owner, settings, job, lease, own);
  return settings.schema ? run.checked(settings.schema, handler) : run.begin(handler, job.payload);
}

class HandlerRun {
  readonly #settings: ReceiverSettings;
  readonly #job: Job;
  readonly #lease: Lease;
  readonly #context: HandlerContext;
  readonly #running: Running;
  #startedAt: number;

  constructor(owner: object, settings: ReceiverSettings, job: Job, lease: Lease, own: Own) {
    this.#settings = settings;
    this.#job = job;
    this.#lease = lease;
    this.#context = new HandlerContext(job, lease, own, settings);
    this.#running = new Running(owner, job.key);
    this.#startedAt = settings.world.clock.now();
    // The schema counts too: one that asks a service may hang like any handler.
    lease.limit(this.#startedAt, settings.handlerTimeoutMs);
  }

  async checked(schema: StandardSchema<unknown>, handler: AnyHandler): Promise<Handled | Thrown> {
    let payload: unknown;
    try {
      payload = await fit('invalid-payload', validate(schema, this.#job.payload));
    } catch (error) {
      return this.#ended({ error });
    }
    this.#startedAt = this.#settings.world.clock.now();
    return this.begin(handler, payload);
  }

  begin(handler: AnyHandler, payload: unknown): Handled | Thrown | Promise<Handled | Thrown> {
    let returned: unknown;
    try {
      returned = this.#running.call(handler, payload, this.#context);
    } catch (error) {
      returned = Promise.reject(error);
    }
    const isOver = !isThenable(returned) && !this.#context.hasBegun && !this.#settings.results;
    return isOver ? this.#ended(this.#handled(returned)) : this.#wait(returned);
  }

  async #wait(returned: unknown): Promise<Handled | Thrown> {
    const { codec, maxResultBytes, results } = this.#settings;
    try {
      let result: unknown;
      try {
        result = await returned;
      } catch (error) {
        await this.#context.end(true);
        throw error;
      }
      if (this.#context.hasBegun) await this.#context.end(false);
      const handled = this.#handled(result);
      if (!results) return this.#ended(handled);
      const encoded = await fit('unencodable-result', async () => encodeResult(codec, maxResultBytes, result));
      return this.#ended({ ...handled, encoded });
    } catch (error) {
      return this.#ended({ error });
    }
  }

  #handled(result: unknown): Handled {
    return { result, encoded: undefined, startedAt: this.#startedAt, endedAt: this.#settings.world.clock.now() };
  }

  #ended<T extends Handled | Thrown>(outcome: T): T {
    this.#running.ended = true;
    this.#lease.unlimit();
    return outcome;
  }
}

function isThenable(value: unknown): boolean {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false;
  return typeof (value as { then?: unknown }).then === 'function';
}

/** Decides by the class of the error, then by what happened to the lease, then by the attempts that are left. */
export function failureOf(settings: ReceiverSettings, thrown: unknown, attempt: number, lease: Lease): Failure {
  const error = thrownValue(thrown);
  if (error instanceof Unfit) return { park: error.reason, detail: error.message, error: error.cause };
  if (error instanceof TerminalError) return { park: 'terminal', detail: describeError(error), error };
  const aborted = lease.aborted?.code;
  // A stopping receiver is not the message's fault.
  if (aborted === 'stopped') return { retry: 'stopped', afterMs: 0, counted: false, error };
  if (attempt >= settings.maxAttempts) {
    const unknown = error instanceof ReceiverError && error.code === 'unknown-outcome';
    return { park: unknown ? 'unknown-outcome' : 'max-attempts', detail: describeError(error), error };
  }
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
  const full = Math.min(maxMs, firstMs * 2 ** Math.min(attempt - 1, 1_000));
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
