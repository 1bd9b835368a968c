import { ReceiverError, show } from '../errors.ts';
import type { StandardSchema } from '../schema.ts';
import { checkName } from './names.ts';
import type { Run } from './run.ts';

/** What the function of a step is given. */
export interface StepCall {
  /**
   * An idempotency key to pass on with the effect (such as Stripe's `Idempotency-Key`): the same on every attempt, another for every
   * step. 32 characters of base64url. For a step it is `ctx.key(name)`.
   */
  readonly key: string;
  /** Greater for each new claim of the message. A resource that can compare refuses a smaller one than it has seen. */
  readonly fence: number;
  /** The handler's: aborted when the claim is lost, when its time is up, or when the receiver stops. */
  readonly signal: AbortSignal;
}

/** What has become of an effect whose reply nobody has recorded: done, with this result; certainly not done, now or later; not known yet. */
export type Confirmed<Result> = { readonly done: Result } | 'absent' | 'unknown';

/**
 * Asks whoever the effect was asked of. `ageMs`: since it was begun, by the clocks of the two workers. A request may still be on its way:
 * answer `absent` only when it can't arrive any more, or when its receiver honours keys.
 */
export type Confirm<Result> = (
  key: string,
  more: { readonly ageMs: number; readonly signal: AbortSignal },
) => Promise<Confirmed<Result>> | Confirmed<Result>;

/** Options of one step. */
export interface StepOptions<Result, Output = Result> {
  /** Checks and types the result, also one that comes from the journal. It runs after the result has been recorded. */
  readonly schema?: StandardSchema<Output>;
  /**
   * Makes a note before the effect, for one more round trip, so that an attempt which finds the note and no outcome asks this first. While it
   * answers `unknown`, the step throws a ReceiverError `unknown-outcome`: the message is tried again, then parked with that reason.
   */
  readonly confirm?: Confirm<Result>;
}

/**
 * Does something once in the life of a message: its result is recorded in the journal, and later attempts are given that instead. A
 * `TerminalError` is recorded too and thrown again; any other error is not, and the next attempt does the step again.
 *
 * Between the effect and its record there is a gap: a process that dies in it leaves no trace of the effect, and the next attempt asks for
 * it again, with the same `key`. Give `confirm` where the other side does not honour keys.
 *
 * If it fails, so does the handler, unless it has asked what became of it.
 *
 * A step is known by its name, which must be its own within the message. The result goes through the codec, also on the first attempt, so
 * what is returned is what any later attempt would be given.
 *
 * @throws what `run` throws; TerminalError if the result can't be recorded (not encodable, or over `maxResultBytes`), because the effect has
 * happened; ReceiverError `claim-lost` if others may have taken over, `unknown-outcome`, `steps-changed` if an earlier attempt has done
 * steps that this one has not asked for, `nested`, `invalid-step`, `codec`, `invalid-payload` (the schema), `store`
 */
export type Step = <Result, Output = Result>(
  name: string,
  run: (call: StepCall) => Result | Promise<Result>,
  options?: StepOptions<Result, Output>,
) => Promise<Output>;

export function stepOf(run: Run): Step {
  return (name, work, options = {}) =>
    run.begin(async () => {
      checkName('step', name);
      return (await run.perform({ name, run: checkWork(name, work), ...checkOptions(name, options), after: '' })) as never;
    });
}

export function checkWork<Fn>(name: string, work: Fn): Fn {
  if (typeof work === 'function') return work;
  throw new ReceiverError('invalid-step', `Expected step ${show(name)} to be a function, got ${show(work)}`);
}

export function checkOptions(name: string, { schema, confirm }: StepOptions<any, any>): Pick<StepOptions<any, any>, 'schema' | 'confirm'> {
  if (confirm !== undefined) checkWork(`${name}: \`confirm\``, confirm);
  return { ...(schema && { schema }), ...(confirm && { confirm }) };
}
