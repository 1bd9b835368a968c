import { coalesce } from './coalesce.ts';
import {
  behind,
  busy,
  type Core,
  conclude,
  deliver,
  endOf,
  retry,
  storeTrouble,
  unfitClaim,
  unstartedEnding,
  verdictFor,
  type Way,
} from './core.ts';
import { isClaimLost, ReceiverError } from './errors.ts';
import { askOf, isAsking, type Job, lanesOf } from './job.ts';
import type { Verdict } from './message.ts';
import type { TransactionalStore, Unit } from './store.ts';
import { type Counted, UnitOfWork } from './unit-of-work.ts';

/**
 * The transactional way: open a unit of work, record its keys in it as done, run the handlers one after another, each in a savepoint of
 * its own, commit, give verdicts. Jobs that arrive together share a unit, up to `groupSize`.
 *
 * A failure undoes only its own savepoint, and is counted in the same transaction. A process that dies takes the count with it,
 * so a message that comes again is claimed and counted beforehand, and one that had been counted before runs in a unit of its own.
 */
export function transactionalWay(core: Core, owner: object, units: TransactionalStore<unknown>): Way {
  const { settings } = core;
  const inUnits = new Map<string | undefined, (jobs: readonly Job[]) => Promise<Verdict[]>>();
  /** Called when the verdicts are known that the job's group gets if its unit commits. */
  const whenForeseen = new WeakMap<Job, () => void>();
  /** What was begun while the group before it was under way: nothing of it counts unless that has committed. */
  const builtOn = new WeakMap<Job, { readonly jobs: readonly Job[]; readonly delivered: Promise<void> }>();
  /** Jobs whose unit did not commit. */
  const undone = new WeakSet<Job>();
  /** The attempts of those that were claimed before their unit, which turns the claim into the record. */
  const counted: Counted = new WeakMap();

  /** Jobs of calls that come at the same time share a unit, unless it belongs to a partition. */
  function inUnit(jobs: readonly Job[]): Promise<Verdict[]> {
    const partition = partitionOf(jobs);
    let share = inUnits.get(partition);
    if (!share) {
      share = coalesce(runUnit, { maxBatch: settings.groupSize, atOnce: units.unitsAtOnce });
      inUnits.set(partition, share);
    }
    return share(jobs);
  }

  function partitionOf(jobs: readonly Job[]): string | undefined {
    return units.perPartition ? jobs[0]?.source.partition : undefined;
  }

  async function run(lanes: readonly (readonly Job[])[]): Promise<void> {
    const [suspect, clear] = split(lanes, (lane) => core.store !== undefined && lane.some(isSuspect));
    await Promise.all([runTogether(clear.flat()), runSuspects(suspect)]);
  }

  /** A group at a time, so that no claim lapses while others have their turn. */
  async function runSuspects(lanes: readonly (readonly Job[])[]): Promise<void> {
    const jobs = lanes.flat();
    const blockers = new Map<string, Job>();
    for (let at = 0; at < jobs.length; at += settings.groupSize) {
      const [blocked, free] = split(jobs.slice(at, at + settings.groupSize), ({ lane }) => blockers.has(lane));
      for (const job of blocked) deliver(job, behind(core, job, blockers.get(job.lane)!));
      await runCounted(lanesOf(free));
      for (const job of free) if (job.verdict!.action === 'retry' && !blockers.has(job.lane)) blockers.set(job.lane, job);
    }
  }

  /**
   * Their attempts are counted durably before any of their handlers runs: of all in one call, and they run as others do. A lane with one that had been
   * counted before runs one by one: that may have killed its process, and would take an attempt of all its company each time.
   */
  async function runCounted(lanes: readonly (readonly Job[])[]): Promise<void> {
    let again: ReadonlySet<readonly Job[]>;
    try {
      again = new Set(settings.maxAttempts > 1 ? await countAll(lanes) : lanes);
    } catch (error) {
      await Promise.all(lanes.map((lane) => oneByOne(lane, (job) => job.preset ?? storeTrouble(core, job, error))));
      return;
    }
    const [alone, together] = split(lanes, (lane) => again.has(lane));
    await Promise.all([runTogether(together.flat()), ...alone.map((lane) => oneByOne(lane, runAlone))]);
  }

  /**
   * Answers the lanes in which one had been counted before, or can't be used any more; nothing of them is claimed then. @throws if it can't be told
   * what has been counted: whatever was is given back, or lapses.
   */
  async function countAll(lanes: readonly (readonly Job[])[]): Promise<readonly (readonly Job[])[]> {
    const [late, jobs] = split(lanes.flat().filter(isSuspect), ({ lease }) => lease!.over);
    const again = new Set(late);
    const answers = await core.store!.claim(jobs.map((job) => askOf(job, settings)));
    jobs.forEach((job, i) => {
      const answer = answers[i]!;
      if (answer.state !== 'claimed') {
        job.answer = answer;
        return;
      }
      counted.set(job, answer.attempt);
      job.orphaned = answer.orphaned;
      if (answer.attempt > 1) again.add(job);
    });
    const found = lanes.filter((lane) => lane.some((job) => again.has(job)));
    const claims = found.flat().filter((job) => counted.delete(job));
    if (claims.length > 0) await core.store!.settle(claims.map((job) => endOf(core, job, unstartedEnding)));
    // What is claimed anew is another claim: nothing that comes late of the first one may touch it.
    for (const job of claims) job.token = settings.world.random.token();
    return found;
  }

  function isSuspect(job: Job): boolean {
    return job.delivery.redelivered === true && isAsking(job);
  }

  /** Chained units overlap: the next one's handlers run while this one commits. */
  async function runTogether(jobs: readonly Job[]): Promise<void> {
    const order: Order = { blockers: new Map(), toBeBlocked: new Set() };
    let delivered: Promise<void> = Promise.resolve();
    let overlaps = false;
    for (let at = 0; at < jobs.length; at += settings.groupSize) {
      const foreseen = Promise.withResolvers<boolean>();
      const group = jobs.slice(at, at + settings.groupSize);
      if (overlaps) {
        const before = { jobs: jobs.slice(at - settings.groupSize, at), delivered };
        for (const job of group) builtOn.set(job, before);
      }
      delivered = runGroup(group, order, delivered, () => foreseen.resolve(true));
      overlaps = (await Promise.race([foreseen.promise, delivered])) === true;
    }
    await delivered;
  }

  async function runGroup(jobs: readonly Job[], order: Order, earlier: Promise<void>, foreseen: () => void): Promise<void> {
    const { blockers, toBeBlocked } = order;
    const [blocked, free] = split(jobs, ({ lane }) => blockers.has(lane) || toBeBlocked.has(lane));
    if (units.chained && free[0]) {
      whenForeseen.set(free[0], () => {
        for (const { lane, foreseen: verdict } of free) if (verdict!.action === 'retry') toBeBlocked.add(lane);
        foreseen();
      });
    }
    const verdicts = await afterUndone(free, await inUnit(free));
    await earlier;
    const own = new Set(free);
    free.forEach((job, i) => {
      const blocker = blockers.get(job.lane);
      // A unit of an earlier group did not commit, and so nor did this one's.
      const verdict = blocker && !own.has(blocker) ? behind(core, job, blocker) : verdicts[i]!;
      deliver(job, verdict);
      if (verdict.action === 'retry' && !blocker) blockers.set(job.lane, job);
    });
    for (const job of blocked) deliver(job, behind(core, job, blockers.get(job.lane)!));
  }

  /** What was claimed before its unit, and has not become a record in it, is given back. */
  function afterUndone(jobs: readonly Job[], verdicts: readonly Verdict[]): readonly Verdict[] | Promise<Verdict[]> {
    if (!jobs.some((job) => counted.has(job) && undone.has(job))) return verdicts;
    return Promise.all(jobs.map((job, i) => (counted.has(job) && undone.has(job) ? releaseCounted(job, verdicts[i]!) : verdicts[i]!)));
  }

  /** The unit has been rolled back, or its outcome is unknown. If it did commit, the record is no longer claimed and this changes nothing. */
  function releaseCounted(job: Job, verdict: Verdict): Promise<Verdict> {
    return conclude(core, job, { ending: { as: 'released', counted: true }, verdict: () => verdict });
  }

  /** The first that has to be tried again stops those behind it. */
  async function oneByOne(lane: readonly Job[], verdictOf: (job: Job) => Verdict | Promise<Verdict>): Promise<void> {
    let blocker: Job | undefined;
    for (const job of lane) {
      deliver(job, blocker ? behind(core, job, blocker) : await verdictOf(job));
      if (job.verdict!.action === 'retry') blocker ??= job;
    }
  }

  async function runAlone(job: Job): Promise<Verdict> {
    if (!isSuspect(job)) return (await inUnit([job]))[0]!;
    if (!(await core.suspects.enter())) return retry(core, job, 'stopped', 0);
    try {
      // It may have waited for long: what can't be used any more need not be counted.
      return job.lease!.over ? retry(core, job, 'expired', 0) : await runSuspect(job);
    } catch (error) {
      return storeTrouble(core, job, error);
    } finally {
      core.suspects.leave();
    }
  }

  /**
   * Counts the attempt durably before the handler runs. The unit then turns the claim into the record, if it is still current; from there on
   * the transaction holds it, so its lease is not extended.
   */
  async function runSuspect(job: Job): Promise<Verdict> {
    const [answer] = await core.store!.claim([askOf(job, settings)]);
    if (answer!.state === 'busy') return busy(core, job, answer!.remainingMs);
    if (answer!.state !== 'claimed') return verdictFor(core, job, answer!)!;
    const unfit = unfitClaim(core, job, answer!.attempt);
    if (unfit) return conclude(core, job, unfit);
    counted.set(job, answer!.attempt);
    const [verdict] = await runUnit([job]);
    return undone.has(job) ? releaseCounted(job, verdict!) : verdict!;
  }

  /**
   * Waits until it is known what has become of the groups that these jobs were begun upon, which costs nothing: the store commits in that order too.
   * @throws if one of them did not commit
   */
  async function sound(jobs: readonly Job[]): Promise<void> {
    for (const before of new Set(jobs.map((job) => builtOn.get(job)))) {
      await before?.delivered;
      if (before?.jobs.some((job) => undone.has(job))) throw new ReceiverError('store', 'The unit before this one did not commit');
    }
  }

  /** Never rejects: what breaks a unit is answered by a verdict for each of its jobs. Jobs that one does not come to are begun in the next. */
  async function runUnit(jobs: readonly Job[]): Promise<Verdict[]> {
    const verdicts: Verdict[] = [];
    let blockers: ReadonlyMap<string, Job> = new Map();
    while (verdicts.length < jobs.length) {
      const rest = jobs.slice(verdicts.length);
      const work = new UnitOfWork(core, owner, counted, blockers);
      verdicts.push(...(await runWork(work, rest, blockers)));
      blockers = work.blockers;
    }
    return verdicts;
  }

  async function runWork(work: UnitOfWork, jobs: readonly Job[], blockers: ReadonlyMap<string, Job>): Promise<Verdict[]> {
    const run = async (unit: Unit<unknown> | undefined): Promise<Verdict[]> => {
      const verdicts = await work.run(unit, jobs, () => sound(jobs));
      for (const job of jobs) whenForeseen.get(job)?.();
      return verdicts;
    };
    try {
      const verdicts = await (jobs.some((job) => isAsking(job) || job.source.committing)
        ? core.gate.watch(() => units.unit(run, partitionOf(jobs)))
        : run(undefined));
      work.committed();
      return verdicts;
    } catch (error) {
      for (const job of jobs) undone.add(job);
      const troubled = new Set<string>(blockers.keys());
      return jobs.map((job) => {
        if (job.preset && !troubled.has(job.lane)) return job.preset;
        troubled.add(job.lane);
        return isClaimLost(error) ? retry(core, job, 'fenced', 0, { error }) : storeTrouble(core, job, error);
      });
    }
  }

  return run;
}

/** What stops the lanes of a call. */
interface Order {
  /** The job in each lane that has to be tried again. */
  readonly blockers: Map<string, Job>;
  /** Lanes that will have one as soon as the unit that is under way has ended, whether it commits or not. */
  readonly toBeBlocked: Set<string>;
}

function split<T>(items: readonly T[], first: (item: T) => boolean): [T[], T[]] {
  const yes: T[] = [];
  const no: T[] = [];
  for (const item of items) (first(item) ? yes : no).push(item);
  return [yes, no];
}
