import { coalesce } from './coalesce.ts';
import {
  type Core,
  conclude,
  deadLetter,
  deliver,
  endingOf,
  eventOf,
  follow,
  parked,
  retry,
  storeTrouble,
  unfitClaim,
  verdictFor,
  type Way,
} from './core.ts';
import { failureOf, type Handled, runHandler } from './handler.ts';
import { ReceiverError } from './errors.ts';
import { askOf, type Job } from './job.ts';
import { limiter } from './limiter.ts';
import type { Verdict } from './message.ts';
import type { Answer, End, Ending, TransactionalStore, Unit } from './store.ts';

/**
 * The transactional way: open a unit of work, record its keys in it as done, run the handlers one after another, each in a savepoint of
 * its own, commit, give verdicts. Lanes that arrive together share a unit, up to `groupSize` messages.
 *
 * A failure undoes only its own savepoint, and is counted in the same transaction. A process that dies takes the count with it,
 * so a message that comes again is claimed and counted beforehand, in a transaction of its own, and runs in a unit of its own.
 */
export function transactionalWay(core: Core, owner: object, units: TransactionalStore<unknown>): Way {
  const { settings } = core;
  const { clock } = settings.world;
  const inUnit = coalesce(runUnit, { maxBatch: settings.groupSize });
  const suspects = limiter(1);
  core.stopping.addEventListener('abort', () => suspects.close());

  async function runLane(lane: readonly Job[]): Promise<void> {
    const alone = core.store !== undefined && lane.some(({ delivery }) => delivery.redelivered);
    const size = alone ? 1 : settings.groupSize;
    for (let at = 0; at < lane.length; at += size) {
      const part = lane.slice(at, at + size);
      const verdicts = alone ? [await runAlone(part[0]!)] : await runTogether(part);
      for (const [i, job] of part.entries()) deliver(job, verdicts[i]!);
      const last = verdicts.at(-1)!;
      if (last.action !== 'retry') continue;
      for (const job of lane.slice(at + size)) deliver(job, blocked(core, job, part.at(-1)!, last));
      return;
    }
  }

  async function runTogether(jobs: readonly Job[]): Promise<Verdict[]> {
    for (const job of jobs) keepHold(job);
    try {
      return await inUnit(jobs);
    } catch (error) {
      return jobs.map((job) => storeTrouble(core, job, error));
    } finally {
      for (const job of jobs) letGo(job);
    }
  }

  async function runAlone(job: Job): Promise<Verdict> {
    if (job.preset || job.follows || job.answer || !job.delivery.redelivered) return (await runTogether([job]))[0]!;
    if (!(await suspects.enter())) return retry(core, job, 'stopped', 0);
    try {
      return await runSuspect(job);
    } catch (error) {
      return storeTrouble(core, job, error);
    } finally {
      letGo(job);
      suspects.leave();
    }
  }

  /** Counts the attempt durably before the handler runs. The unit then turns the claim into the record, if it is still current. */
  async function runSuspect(job: Job): Promise<Verdict> {
    const claimedAt = clock.now();
    const [answer] = await core.store!.claim([askOf(job, settings)]);
    if (answer!.state === 'busy') return retry(core, job, 'busy', Math.round(answer!.remainingMs));
    if (answer!.state !== 'claimed') return verdictFor(core, job, answer!)!;
    const { key, token, delivery, source } = job;
    job.lease = core.leases.start({ claim: { key, token }, delivery, source, claimedAt });
    const unfit = unfitClaim(core, job, answer!.attempt);
    if (unfit) {
      const verdict = { action: 'dead-letter', reason: unfit.park, detail: unfit.detail, attempts: answer!.attempt - 1 } as const;
      return conclude(core, job, parked(core, job, unfit.park, unfit.detail), () => deadLetter(core, job, verdict));
    }
    const [verdict] = await runUnit([job]);
    if (verdict!.action !== 'retry' || verdict!.reason !== 'store') return verdict!;
    // The unit has been rolled back, or its outcome is unknown. If it did commit, the record is no longer claimed and this changes nothing.
    return conclude(core, job, { as: 'released', counted: true }, () => verdict!);
  }

  async function runUnit(jobs: readonly Job[]): Promise<Verdict[]> {
    // What happens in a unit has happened only when it has committed, so what is told and remembered of it waits until then.
    const afterCommit: (() => void)[] = [];
    const inside: Core = { ...core, emit: (name, event) => void afterCommit.push(() => core.emit(name, event)) };
    try {
      const verdicts = await core.gate.watch(() => units.unit((unit) => runInUnit(inside, unit, jobs, afterCommit)));
      for (const tell of afterCommit) tell();
      return verdicts;
    } catch (error) {
      return jobs.map((job) => job.preset ?? storeTrouble(core, job, error));
    }
  }

  async function runInUnit(core: Core, unit: Unit<unknown>, jobs: readonly Job[], afterCommit: (() => void)[]): Promise<Verdict[]> {
    const asking = jobs.filter((job) => !job.preset && !job.follows && !job.answer);
    const answers = new Map<Job, Answer>();
    if (asking.length > 0) {
      const recorded = await unit.record(asking.map((job) => askOf(job, settings)));
      if (recorded.length !== asking.length) throw nonsense('record', asking.length, recorded.length);
      asking.forEach((job, i) => answers.set(job, recorded[i]!));
    }
    const ends: End[] = [];
    const verdicts = new Map<Job, Verdict>();
    const blockers = new Map<string, Job>();
    const own = new Set<string>();
    for (const job of jobs) {
      const blocker = blockers.get(job.lane);
      const answer = job.answer ?? answers.get(job);
      let verdict: Verdict;
      if (blocker) {
        if (answer?.state === 'claimed') ends.push(endFor(job, { as: 'released', counted: false }));
        verdict = blocked(core, job, blocker, verdicts.get(blocker)!);
      } else if (job.preset) verdict = job.preset;
      else if (job.follows) verdict = follow(core, job, verdicts.get(job.follows) ?? job.follows.verdict!);
      else if (answer!.state === 'claimed') {
        own.add(job.key);
        verdict = await useRecord(core, unit, job, answer as Claimed, ends, afterCommit);
      } else if (answer!.state === 'busy') verdict = retry(core, job, 'busy', Math.round(answer!.remainingMs));
      // A copy in another lane of this very unit: not known to be done before the unit has committed.
      else if (own.has(job.key) && answer!.state === 'completed') verdict = retry(core, job, 'busy', 0);
      else verdict = verdictFor(core, job, answer!)!;
      verdicts.set(job, verdict);
      if (verdict.action === 'retry' && !blocker) blockers.set(job.lane, job);
    }
    if (ends.length > 0) {
      const settled = await unit.settle(ends);
      const refused = settled.findIndex((each) => each !== 'ok');
      if (refused >= 0 || settled.length !== ends.length) throw nonsense('settle', ends.length, settled.length);
    }
    return jobs.map((job) => verdicts.get(job)!);
  }

  /** Runs the handler in its savepoint. The verdict holds only if the unit commits. */
  async function useRecord(
    core: Core,
    unit: Unit<unknown>,
    job: Job,
    { attempt, orphaned }: Claimed,
    ends: End[],
    afterCommit: (() => void)[],
  ): Promise<Verdict> {
    const lease = job.lease!;
    const unfit = unfitClaim(core, job, attempt);
    if (unfit) {
      ends.push(endFor(job, parked(core, job, unfit.park, unfit.detail)));
      return deadLetter(core, job, { action: 'dead-letter', reason: unfit.park, detail: unfit.detail, attempts: attempt - 1 });
    }
    if (core.stopping.aborted || lease.over) {
      ends.push(endFor(job, { as: 'released', counted: false }));
      return retry(core, job, core.stopping.aborted ? 'stopped' : 'expired', 0);
    }
    core.emit('claimed', { ...eventOf(core, job), attempt, orphaned });
    let failed: { readonly error: unknown } | undefined;
    let handled: Handled | undefined;
    try {
      handled = await unit.savepoint(async (tx) => {
        try {
          return await runHandler(owner, settings, core.handler, job, lease, { attempt, tx });
        } catch (error) {
          failed = { error };
          throw error;
        }
      });
    } catch (error) {
      // Only what the handler itself threw is the handler's failure; a savepoint that fails breaks the unit.
      if (failed?.error !== error) throw error;
      const { ending, verdict } = endingOf(core, job, failureOf(settings, error, attempt, lease), attempt);
      ends.push(endFor(job, ending));
      return verdict();
    }
    const { result, encoded, durationMs } = handled;
    if (encoded !== undefined) ends.push(endFor(job, { as: 'completed', result: encoded }));
    core.emit('completed', { ...eventOf(core, job), attempt, durationMs });
    afterCommit.push(() => core.cache.add(job.key, { fingerprint: job.fingerprint, result: encoded, at: clock.now() }));
    return { action: 'ack', outcome: 'completed', result };
  }

  function blocked(core: Core, job: Job, blocker: Job, verdict: Verdict): Verdict {
    const { afterMs } = verdict as Verdict & { action: 'retry' };
    return job.follows === blocker ? verdict : retry(core, job, 'order', afterMs);
  }

  function endFor(job: Job, ending: Ending): End {
    return { key: job.key, token: job.token, retainMs: settings.retentionMs, ...ending };
  }

  function keepHold(job: Job): void {
    const { delivery, source } = job;
    job.lease ??= core.leases.start({ delivery, source, claimedAt: clock.now() });
  }

  function letGo(job: Job): void {
    job.lease?.end();
    job.lease = undefined;
  }

  return { prepare: async () => {}, runLane };
}

type Claimed = Extract<Answer, { state: 'claimed' }>;

function nonsense(call: string, asked: number, got: number): ReceiverError {
  return new ReceiverError('store', `Expected the store's \`${call}\` to answer ${asked} times with success, got ${got} answers or a refusal`);
}
