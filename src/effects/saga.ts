import { describeError, isClaimLost, ReceiverError, RetryAfter, show, TerminalError } from '../errors.ts';
import { checkName, sagaName, sagaStepName, undoName } from './names.ts';
import { failureText, type Run } from './run.ts';
import { checkOptions, checkWork, type StepCall, type StepOptions } from './step.ts';
import { UnderWay } from './under-way.ts';

/** Options of a step that can be taken back. */
export interface SagaStepOptions<Result, Output = Result> extends StepOptions<Result, Output> {
  /**
   * Takes the step back; `call.key` is a key of its own. Itself a step: once in the life of the message, and tried again when it fails. It
   * must be able to succeed in the end.
   */
  readonly undo?: (result: Output, call: StepCall) => unknown;
}

/** What the body of a saga is given. */
export interface Saga {
  /** As `ctx.step`, with a way back. */
  step<Result, Output = Result>(
    name: string,
    run: (call: StepCall) => Result | Promise<Result>,
    options?: SagaStepOptions<Result, Output>,
  ): Promise<Output>;
}

/** A saga has failed for good, and all that it had done has been undone. Its `cause` is why. */
export class SagaUndone extends TerminalError {
  override readonly name: string = 'SagaUndone';
  /** The names of the steps that were undone, in that order. */
  readonly undone: readonly string[];

  constructor(message: string, undone: readonly string[], options?: ErrorOptions) {
    super(message, options);
    this.undone = undone;
  }
}

/**
 * Steps that belong together. If the body throws a `TerminalError`, the steps that are done are undone in the reverse of the order in which they
 * were begun, one after another; then the saga throws `SagaUndone`, a TerminalError. Any other error undoes nothing: the message is tried
 * again, and goes on where it was. A process that dies does not change that, in either direction.
 *
 * A step that failed without a TerminalError counts as not done, unless it has `confirm`, which is then asked; one whose result can't be kept
 * can't be undone, and the error says so. A compensation that fails is
 * tried again with the message; when the attempts are used up, or at once if it throws a TerminalError, the message is parked, and its detail
 * tells what has been undone and what not. `replay` goes on from there.
 *
 * @throws SagaUndone; what the body throws; what `step` throws
 */
export type RunSaga = <Result>(name: string, body: (saga: Saga) => Result) => Promise<Awaited<Result>>;

export function sagaOf(run: Run): RunSaga {
  return ((name: string, body: (saga: Saga) => unknown) =>
    run.begin(async () => {
      checkName('saga', name);
      checkWork(name, body);
      return run.saga(sagaName(name), () => new SagaRun(run, name).run(body));
    })) as RunSaga;
}

interface Begun {
  readonly name: string;
  /** There once it is done. */
  undo?: (call: StepCall) => unknown;
  /** There if it has failed and may be done all the same. */
  open?: { readonly error: unknown };
}

class SagaRun {
  readonly #run: Run;
  readonly #name: string;
  readonly #steps: Begun[] = [];
  readonly #underWay = new UnderWay();
  /** Why it is being undone. */
  #failure: TerminalError | undefined;
  #ended = false;

  constructor(run: Run, name: string) {
    this.#run = run;
    this.#name = name;
  }

  async run(body: (saga: Saga) => unknown): Promise<unknown> {
    const known = await this.#run.known();
    const undoing = known.ask(sagaName(this.#name));
    if (undoing) this.#failure = new TerminalError(undoing.text);
    const saga: Saga = {
      step: (name, work, options = {}) => this.#begin(() => this.#step(name, work as never, options)) as Promise<never>,
    };
    try {
      const result = await body(saga);
      // Also those that the body has not waited for.
      while (this.#underWay.left.length > 0) await Promise.all(this.#underWay.left);
      this.#underWay.check();
      if (!this.#failure) {
        this.#ended = true;
        return result;
      }
    } catch (error) {
      if (!this.#failure && !(error instanceof TerminalError)) {
        this.#ended = true;
        throw error;
      }
      // From here on no step of it is begun any more.
      this.#failure ??= error as TerminalError;
    }
    const failure = this.#failure!;
    // Decided for good: what follows is also what an attempt does that comes after a crash.
    if (!undoing) await this.#run.write({ name: sagaName(this.#name), state: 'failed', text: failureText(failure) });
    await known.allAsked(sagaStepName(this.#name, ''), `undoes the saga ${show(this.#name)} without it`);
    await this.#underWay.quiet();
    // The next attempt knows more: it asks `confirm`, and the journal.
    const open = this.#steps.find((each) => each.open)?.open;
    if (open) throw open.error;
    throw await this.#undo(failure);
  }

  /** What comes after its end is the handler's to fail by. */
  #begin<T>(work: () => Promise<T>): Promise<T> {
    return this.#ended ? this.#run.begin(work) : this.#underWay.add(work());
  }

  async #step(name: string, work: (call: StepCall) => unknown, options: SagaStepOptions<any, any>): Promise<unknown> {
    checkName('step of a saga', name);
    const { undo } = options;
    if (undo !== undefined) checkWork(`${name}: \`undo\``, undo);
    const begun: Begun = { name };
    const task = {
      ...{ name: sagaStepName(this.#name, name), run: checkWork(name, work), ...checkOptions(name, options) },
      // A saga that is being undone asks for no more than its own steps; what comes after it comes after it.
      after: this.#failure ? sagaStepName(this.#name, '') : '',
      refuse: () => {
        if (this.#failure) throw new TerminalError(this.#failure.message, { cause: this.#failure });
        if (this.#ended) throw new ReceiverError('invalid-step', `Step ${show(name)} was begun after its saga had ended: wait for it`);
      },
    };
    this.#steps.push(begun);
    try {
      const result = await this.#run.perform(task);
      // What it gives is nobody's concern.
      if (undo) begun.undo = async (call) => void (await undo(result, call));
      return result;
    } catch (error) {
      // An error of this library may come after the effect: its result can't be recorded now, or does not fit its schema.
      if (error instanceof ReceiverError || (options.confirm && !(error instanceof TerminalError))) begun.open = { error };
      throw error;
    }
  }

  async #undo(failure: TerminalError): Promise<unknown> {
    const todo = this.#steps.filter(({ undo }) => undo).reverse();
    const undone: string[] = [];
    for (const { name, undo } of todo) {
      try {
        await this.#run.perform({ name: undoName(this.#name, name), run: undo!, keepsFailure: false });
      } catch (error) {
        return stuck(
          this.#name,
          failure,
          undone,
          todo.slice(undone.length).map((each) => each.name),
          error,
        );
      }
      undone.push(name);
    }
    return new SagaUndone(`Saga ${show(this.#name)} was undone (${list(undone)}): ${failure.message}`, undone, { cause: failure });
  }
}

/** The error of a compensation, with what people need to know if nobody gets further. */
function stuck(saga: string, failure: Error, undone: readonly string[], left: readonly string[], cause: unknown): unknown {
  if (isClaimLost(cause)) return cause;
  const why =
    `Saga ${show(saga)} is being undone, and ${show(left[0])} can't be: ${describeError(cause)}; ` +
    `undone: ${list(undone)}; not undone: ${list(left)}; it had failed by: ${failure.message}`;
  if (cause instanceof TerminalError) return new TerminalError(why, { cause });
  return cause instanceof RetryAfter ? new RetryAfter(cause.afterMs, why, { cause }) : new Error(why, { cause });
}

const list = (names: readonly string[]): string => names.join(', ') || 'nothing';
