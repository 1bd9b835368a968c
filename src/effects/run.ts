import type { Clock, World } from '../clock.ts';
import { type Codec, encodeResult } from '../codec.ts';
import { describeError, ReceiverError, show, TerminalError } from '../errors.ts';
import { isInside, runInside } from '../inside.ts';
import type { Lease } from '../lease.ts';
import { type StandardSchema, validate } from '../schema.ts';
import { AttemptJournal, type StepSource } from './attempt-journal.ts';
import type { Entry } from './journal.ts';
import { changed, type Known } from './known.ts';
import { labelOf, nowName } from './names.ts';
import type { Confirm, StepCall } from './step.ts';
import { UnderWay } from './under-way.ts';

/** Steps of one message, all attempts together: what a store can be asked to keep has an end. */
const maxSteps = 1_000;

interface RunSettings {
  readonly world: World;
  readonly codec: Codec;
  readonly maxResultBytes: number;
  readonly retiredSteps: readonly string[];
}

/** What the steps of one attempt work with. */
export interface RunOptions extends StepSource {
  readonly lease: Lease;
  readonly settings: RunSettings;
  /** The downstream idempotency key of a name. */
  readonly keyOf: (name: string) => string;
}

/** Something that is done once in the life of a message. */
export interface Task {
  /** Of its entry. */
  readonly name: string;
  readonly run: (call: StepCall) => unknown;
  readonly schema?: StandardSchema<unknown> | undefined;
  readonly confirm?: Confirm<unknown> | undefined;
  /** Which entries have to be asked for before it is done for the first time: those that begin with it. Absent: it need not wait. */
  readonly after?: string | undefined;
  /** Called before it is done anew; throws if that must not be. */
  readonly refuse?: () => void;
  /** Whether a `TerminalError` is kept, and thrown again by later attempts. Default: true. */
  readonly keepsFailure?: boolean;
}

/** The steps of one attempt at a message. */
export class Run {
  readonly #options: RunOptions;
  readonly #journal: AttemptJournal;
  readonly #clock: Clock;
  readonly #names = new Set<string>();
  readonly #underWay = new UnderWay();
  #now: Promise<number> | undefined;
  /** Begun by this attempt for the first time. */
  #steps = 0;
  #ended = false;

  constructor(options: RunOptions) {
    this.#options = options;
    this.#clock = options.settings.world.clock;
    this.#journal = new AttemptJournal(options, options.lease, { clock: this.#clock, retired: options.settings.retiredSteps });
  }

  /** What earlier attempts have done. */
  async known(): Promise<Known> {
    return (await this.#journal.begin()).known;
  }

  /** Records an entry. */
  write(entry: Entry): Promise<void> {
    return this.#journal.write(entry);
  }

  /** Does a task, or gives what an earlier attempt has made of it. */
  async perform(task: Task): Promise<unknown> {
    this.#enter(task.name, 'step');
    return this.#underWay.add(this.#perform(task));
  }

  /** The time at which it was first asked for. */
  now(): Promise<number> {
    this.#now ??= this.begin(() => this.perform({ name: nowName, run: () => this.#clock.wall() }) as Promise<number>);
    return this.#now;
  }

  /** Runs the body of a saga. */
  async saga<T>(name: string, work: () => Promise<T>): Promise<T> {
    this.#enter(name, 'saga');
    if (isInside(this, 'saga')) throw new ReceiverError('nested', `Saga ${show(labelOf(name))} was begun inside another one`);
    return this.#underWay.add(runInside(this, 'saga', work));
  }

  /** Begins what the handler is given, and may forget. After its end nobody would be told, so that it is left to Node to tell. */
  begin<T>(work: () => Promise<T>): Promise<T> {
    return this.#ended ? work() : this.#underWay.add(work());
  }

  #enter(name: string, what: 'step' | 'saga'): void {
    const label = show(labelOf(name));
    if (this.#ended) throw new ReceiverError('invalid-step', `The ${what} ${label} was begun after its handler had ended: wait for it`);
    if (isInside(this, 'step')) throw new ReceiverError('nested', `The ${what} ${label} was begun inside a step of the same message`);
    if (this.#names.has(name)) {
      const fix = `add what tells them apart, such as ${show(`${labelOf(name)} 7`)}`;
      throw new ReceiverError('invalid-step', `Expected each ${what} of a message to have a name of its own, got ${label} twice: ${fix}`);
    }
    this.#names.add(name);
  }

  async #perform(task: Task): Promise<unknown> {
    this.#journal.expectClaim();
    const { known, claim } = await this.#journal.begin();
    const entry = known.ask(task.name);
    if (entry?.state === 'failed') throw new TerminalError(entry.text);
    if (entry?.state === 'done') return this.#output(task, entry.text);

    if (!entry && task.after !== undefined) await known.allAsked(task.after, `asks for ${show(labelOf(task.name))}, which is new`);
    const call: StepCall = { key: this.#options.keyOf(task.name), fence: claim.fence, signal: this.#options.lease.signal };
    const before = entry && (await this.#confirmed(task, call, entry));
    if (before) return this.#finish(task, before.done);

    task.refuse?.();
    // What undoes steps is not counted: it must always have room.
    if (!entry && task.after !== undefined && known.steps + ++this.#steps > maxSteps) {
      throw new ReceiverError(
        'invalid-step',
        `Expected a message to have at most ${maxSteps} steps, got one more: ${show(labelOf(task.name))}`,
      );
    }
    if (task.confirm) await this.write({ name: task.name, state: 'started', text: String(this.#clock.wall()) });
    this.#journal.expectClaim();
    let result: unknown;
    try {
      result = await runInside(this, 'step', () => task.run(call));
    } catch (error) {
      if (!(error instanceof TerminalError) || task.keepsFailure === false) throw error;
      throw await this.#fail(task, error);
    }
    return this.#finish(task, result);
  }

  /** What is known of an effect whose outcome no attempt has recorded: that it is done, with which result; or nothing, if it is absent. */
  async #confirmed(task: Task, call: StepCall, entry: Entry): Promise<{ readonly done: unknown } | undefined> {
    const name = show(labelOf(task.name));
    const ageMs = Math.max(0, this.#clock.wall() - Number(entry.text));
    const unknown = (who: string, cause?: unknown) => {
      const why = `Step ${name} was begun and its outcome was never recorded: it may have happened, and ${who}`;
      return new ReceiverError('unknown-outcome', why, { cause });
    };
    const { confirm } = task;
    if (!confirm) throw unknown('it has no `confirm` any more');
    const answer: unknown = await runInside(this, 'step', () => confirm(call.key, { ageMs, signal: call.signal })).catch((error) => {
      // That nobody can be asked does not mean that it has not happened.
      throw error instanceof TerminalError ? unknown(`\`confirm\` has failed: ${error.message}`, error) : error;
    });
    if (answer === 'absent') return undefined;
    if (answer === 'unknown') throw unknown('`confirm` does not know');
    if (typeof answer === 'object' && answer !== null && 'done' in answer) return { done: answer.done };
    throw new ReceiverError(
      'invalid-step',
      `Expected \`confirm\` of step ${name} to answer { done }, 'absent' or 'unknown', got ${show(answer)}`,
    );
  }

  /** Records a result, encoded, and gives what a later attempt will be given too. */
  async #finish(task: Task, result: unknown): Promise<unknown> {
    const { codec, maxResultBytes } = this.#options.settings;
    let text: string;
    try {
      text = encodeResult(codec, maxResultBytes, result, 'it');
    } catch (error) {
      // So it must not be done again, and nobody will ever know what it gave.
      const why = `Step ${show(labelOf(task.name))} has been done, but its result can't be kept: ${(error as Error).message}`;
      throw await this.#fail(task, new Error(why, { cause: error }));
    }
    await this.write({ name: task.name, state: 'done', text });
    return this.#output(task, text);
  }

  /** Records that it has failed for good, and gives the error that a later attempt will be given too. */
  async #fail(task: Task, cause: Error): Promise<TerminalError> {
    const text = failureText(cause);
    await this.write({ name: task.name, state: 'failed', text });
    return new TerminalError(text, { cause });
  }

  async #output(task: Task, text: string): Promise<unknown> {
    let value: unknown;
    try {
      value = this.#options.settings.codec.decode(text);
    } catch (cause) {
      const why = `The stored result of step ${show(labelOf(task.name))} can't be decoded: ${describeError(cause)}`;
      throw new ReceiverError('codec', why, { cause });
    }
    return task.schema ? validate(task.schema, value, `the result of step ${show(labelOf(task.name))}`) : value;
  }

  /**
   * The handler has ended, with an error if it `failed`. Waits for the steps that are under way: the next attempt must not meet them.
   * @throws the error of a step that the handler did not wait for; ReceiverError `steps-changed` if it has not asked for all that earlier
   * attempts have done
   */
  async end(failed: boolean): Promise<void> {
    this.#ended = true;
    const { left } = this.#underWay;
    const unasked = await this.#journal.end(() => Promise.allSettled(left));
    if (failed) return;
    await Promise.all(left);
    this.#underWay.check();
    if (unasked.length > 0) throw changed('has ended without asking for it', unasked);
  }
}

/** The text of an error as the journal keeps it. */
export const failureText = (error: Error): string => String(error.message).slice(0, 2_000).toWellFormed();
