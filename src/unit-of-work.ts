import { behind, busy, type Claimed, type Core, endOf, follow, outcomeOf, retry, unfitClaim, unstartedEnding, verdictFor } from './core.ts';
import { stepsAside } from './effects/aside.ts';
import { ReceiverError } from './errors.ts';
import { failureOf, type Handled, runHandler, type Thrown } from './handler.ts';
import { askOf, isAsking, type Job } from './job.ts';
import type { Verdict } from './message.ts';
import type { Answer, End, Ending, Unit } from './store.ts';

/** The attempts of jobs that were claimed before their unit, which turns the claim into the record. */
export type Counted = WeakMap<Job, number>;

/** What happens in one transaction. It has happened only when that has committed, so what is told and remembered of it waits until then. */
export class UnitOfWork {
  readonly #core: Core;
  /** To be done when it has committed. */
  readonly #later: (() => void)[] = [];
  readonly #owner: object;
  readonly #ends: End[] = [];
  readonly #recorded = new Set<string>();
  readonly #counted: Counted;
  /** The job in each lane that has to be tried again. */
  readonly blockers: Map<string, Job>;
  /** How many handlers have done their work in it. */
  #done = 0;

  constructor(core: Core, owner: object, counted: Counted, blockers: ReadonlyMap<string, Job>) {
    const { settings, tell, cache } = core;
    this.#owner = owner;
    this.#counted = counted;
    this.blockers = new Map(blockers);
    this.#core = {
      ...core,
      tell: (name, job, details) => {
        if (settings.on[name]) this.#later.push(() => tell(name, job, details));
      },
      // What the unit before this one has done is `completed` too, and that may still be under way.
      cache: { ...cache, add: (key, entry) => void this.#later.push(() => cache.add(key, entry)) },
    };
  }

  committed(): void {
    for (const run of this.#later) run();
  }

  /**
   * `unit` is needed only where one of the jobs is asking, or its source takes part in the commit. `sound` rejects if it must not commit. Answers for the
   * jobs that it has come to, one at least: the others are for another unit.
   */
  async run(unit: Unit<unknown> | undefined, jobs: readonly Job[], sound: () => Promise<void>): Promise<Verdict[]> {
    const asking = jobs.filter(isAsking);
    const answers = asking.length > 0 ? await unit!.record(asking.map((job) => askOf(job, this.#core.settings))) : [];
    if (answers.length !== asking.length) throw nonsense('record', asking.length, answers.length);
    const verdicts: Verdict[] = [];
    const { blockers } = this;
    let next = 0;
    for (const job of jobs) {
      const answer = job === asking[next] ? answers[next++]! : job.answer;
      const blocker = blockers.get(job.lane);
      const known = blocker ? this.#behind(job, answer, blocker) : this.#verdictOf(unit, job, answer);
      const verdict = known instanceof Promise ? await known : known;
      if (verdict === 'crowded') {
        next--;
        break;
      }
      if (verdict.action === 'retry' && !blocker) blockers.set(job.lane, job);
      job.foreseen = verdict;
      verdicts.push(verdict);
    }
    for (; next < asking.length; next++) if (answers[next]!.state === 'claimed') this.#end(asking[next]!, unstartedEnding);
    const reached = jobs.slice(0, verdicts.length);
    if (this.#ends.length > 0) {
      const settled = await unit!.settle(this.#ends);
      if (settled.length !== this.#ends.length || settled.includes('fenced')) throw nonsense('settle', this.#ends.length, settled.length);
    }
    await sound();
    for (const [source, its] of Map.groupBy(reached, (job) => job.source)) {
      if (!source.committing) continue;
      const told = new Map(its.map((job) => [job.delivery, job.foreseen!]));
      await unit!.savepoint((tx) => source.committing!(tx, told));
    }
    // Looked at last. What was not done, or was undone by its savepoint, takes nothing of the others back.
    if (unit && reached.some((job) => job.source.lost?.aborted && job.foreseen!.action !== 'retry'))
      throw new ReceiverError('claim-lost', 'The broker has taken deliveries back');
    return verdicts;
  }

  #behind(job: Job, answer: Answer | undefined, blocker: Job): Verdict {
    if (answer?.state === 'claimed') this.#end(job, unstartedEnding);
    return behind(this.#core, job, blocker, blocker.foreseen!);
  }

  #verdictOf(unit: Unit<unknown> | undefined, job: Job, answer: Answer | undefined): Verdict | Promise<Verdict | 'crowded'> {
    const core = this.#core;
    if (job.preset) return job.preset;
    if (job.follows) return follow(core, job, job.follows.verdict ?? job.follows.foreseen!);
    if (answer!.state === 'claimed') return this.#handle(unit!, job, answer as Claimed);
    if (answer!.state === 'busy') return busy(core, job, answer!.remainingMs);
    // A copy in another lane of this very unit: not known to be done before the unit has committed.
    if (answer!.state === 'completed' && this.#recorded.has(job.key)) return busy(core, job, 0);
    return verdictFor(core, job, answer!)!;
  }

  /** Runs the handler in its savepoint. One that fails by what the handlers before it stand for is for another unit, where it comes first. */
  async #handle(unit: Unit<unknown>, job: Job, { attempt, orphaned }: Claimed): Promise<Verdict | 'crowded'> {
    const core = this.#core;
    const { settings } = core;
    const lease = job.lease!;
    this.#recorded.add(job.key);
    const unfit = unfitClaim(core, job, attempt);
    if (unfit) {
      this.#end(job, unfit.ending);
      return unfit.verdict();
    }
    // A claim that has lapsed meanwhile was counted anew here, and that would be undone with the transaction.
    const isLapsed = (this.#counted.get(job) ?? attempt) !== attempt;
    if (core.stopping.aborted || lease.over || isLapsed) {
      this.#end(job, unstartedEnding);
      return retry(core, job, core.stopping.aborted ? 'stopped' : 'expired', 0);
    }
    core.tell('claimed', job, { attempt, orphaned: orphaned || job.orphaned });
    const steps = core.journal && stepsAside(job.key, lease, { ...settings, store: core.journal });
    let failed: Thrown | undefined;
    let handled: Handled;
    try {
      handled = await unit.savepoint(async (tx) => {
        const running = runHandler(this.#owner, settings, core.handler, job, lease, { attempt, tx, steps });
        const ended = running instanceof Promise ? await running : running;
        if (!('error' in ended)) return ended;
        failed = ended;
        throw ended.error;
      }, job);
    } catch (error) {
      // Only what the handler itself threw, or has done to its savepoint, is the handler's failure; one that fails by itself breaks the unit.
      const isHandlers =
        (failed && Object.is(failed.error, error)) || (error instanceof ReceiverError && error.code === 'aborted-transaction');
      if (!isHandlers) throw error;
      if (unit.crowded && this.#done > 0) return 'crowded';
      const { ending, verdict } = outcomeOf(core, job, failureOf(settings, error, attempt, lease), attempt);
      this.#end(job, ending);
      return verdict();
    }
    this.#done++;
    const { result, encoded, startedAt, endedAt } = handled;
    if (encoded !== undefined) this.#end(job, { as: 'completed', result: encoded });
    core.tell('completed', job, { attempt, durationMs: endedAt - startedAt });
    core.cache.add(job.key, { fingerprint: job.fingerprint, result: encoded, at: endedAt });
    return { action: 'ack', outcome: 'completed', result };
  }

  #end(job: Job, ending: Ending): void {
    this.#ends.push(endOf(this.#core, job, ending));
  }
}

function nonsense(call: string, asked: number, got: number): ReceiverError {
  return new ReceiverError(
    'store',
    `Expected the store's \`${call}\` to answer ${asked} times with success, got ${got} answers or a refusal`,
  );
}
