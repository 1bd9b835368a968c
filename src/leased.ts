import { sleep } from './clock.ts';
import {
  behind,
  type Claimed,
  type Core,
  conclude,
  deliver,
  endOf,
  follow,
  type Outcome,
  outcomeOf,
  retry,
  storeTrouble,
  unfitClaim,
  unstartedEnding,
  verdictFor,
  type Way,
} from './core.ts';
import type { StepSource } from './effects/attempt-journal.ts';
import type { GuardedJournal } from './guarded-store.ts';
import { failureOf, type Handled, runHandler, type Thrown } from './handler.ts';
import { askOf, isAsking, type Job } from './job.ts';
import type { Lease } from './lease.ts';
import type { Verdict } from './message.ts';
import type { Answer } from './store.ts';

/** How long a handler may go on after its signal was aborted, before it is no longer waited for. */
const abandonAfterMs = 1_000;

const firstPollMs = 20;
const maxPollMs = 1_000;

/**
 * The leased way: claim the batch in one round trip, run handlers while their leases are kept alive, settle (coalesced), give verdicts.
 * Also the way of `fenced`, where the handler's resource checks the fence.
 */
export function leasedWay(core: Core, owner: object): Way {
  const { settings, tell } = core;
  const { clock, random } = settings.world;
  const store = core.store!;

  async function claim(jobs: readonly Job[]): Promise<void> {
    const claimedAt = clock.now();
    const asks = jobs.map((job) => askOf(job, settings));
    const answers = await store.claim(asks);
    jobs.forEach((job, i) => {
      job.answer = answers[i]!;
      if (job.answer.state !== 'claimed') return;
      if (job.answer.orphaned) job.orphaned = true;
      else if (job.orphaned) job.answer = { ...job.answer, orphaned: true };
      job.lease!.claim(asks[i]!, claimedAt);
    });
  }

  async function run(lanes: readonly (readonly Job[])[]): Promise<void> {
    let down: { readonly error: unknown } | undefined;
    try {
      await claimAll(lanes.flat());
    } catch (error) {
      down = { error };
    }
    await Promise.all(lanes.map((lane) => runLane(lane, down)));
  }

  /** Claims what is not known yet, then gives orphaned claims back, to be claimed again one by one when their turn comes. */
  async function claimAll(jobs: readonly Job[]): Promise<void> {
    const asking = jobs.filter(isAsking);
    if (asking.length === 0) return;
    await claim(asking);
    const orphans = asking.filter((job) => job.answer?.state === 'claimed' && job.answer.orphaned);
    if (orphans.length === 0 || core.leases.claims() === 1) return;
    await Promise.all(orphans.map(giveBack));
  }

  async function runLane(lane: readonly Job[], down: { readonly error: unknown } | undefined): Promise<void> {
    for (const job of lane) {
      try {
        const verdict = verdictOf(job, down);
        deliver(job, verdict instanceof Promise ? await verdict : verdict);
      } catch (error) {
        deliver(job, storeTrouble(core, job, error));
      }
      if (job.verdict!.action !== 'retry') continue;
      const rest = lane.slice(lane.indexOf(job) + 1);
      await Promise.all(rest.map((each) => block(each, job)));
      return;
    }
  }

  async function block(job: Job, blocker: Job): Promise<void> {
    if (job.answer?.state === 'claimed') await giveBack(job);
    deliver(job, behind(core, job, blocker));
  }

  async function giveBack(job: Job): Promise<void> {
    await conclude(core, job, { ending: unstartedEnding, verdict: () => ({ action: 'retry', reason: 'order', afterMs: 0 }) });
    job.answer = undefined;
    job.token = random.token();
  }

  /** What it throws or rejects with is trouble of the store. */
  function verdictOf(job: Job, down: { readonly error: unknown } | undefined): Verdict | Promise<Verdict> {
    if (job.preset) return job.preset;
    if (job.follows) return follow(core, job, job.follows.verdict!);
    if (job.answer) return handle(job, job.answer);
    if (!down) return handleAlone(job);
    return settings.onStoreDown === 'run' ? runUnprotected(job) : storeTrouble(core, job, down.error);
  }

  async function handleAlone(job: Job): Promise<Verdict> {
    if (!(await core.suspects.enter())) return retry(core, job, 'stopped', 0);
    try {
      // It may have waited for long: what can't be used any more need not be counted.
      if (job.lease!.over) return retry(core, job, 'expired', 0);
      await claim([job]);
      return await handle(job, job.answer!);
    } finally {
      core.suspects.leave();
    }
  }

  function handle(job: Job, answer: Answer): Verdict | Promise<Verdict> {
    if (answer.state === 'busy') return wait(job, answer);
    return verdictFor(core, job, answer) ?? useClaim(job, answer as Claimed, job.lease!);
  }

  async function wait(job: Job, answer: Answer): Promise<Verdict> {
    const giveUpAt = clock.now() + settings.waitMs;
    for (let pollMs = firstPollMs; answer.state === 'busy'; pollMs = Math.min(pollMs * 2, maxPollMs)) {
      tell('busy', job, { remainingMs: answer.remainingMs });
      const waitMs = Math.min(pollMs, giveUpAt - clock.now());
      // Its owner may extend the lease, so the duplicate comes back a little later than the lease ends, and not all copies at once.
      const afterMs = Math.round(answer.remainingMs + random.number() * 1_000);
      if (waitMs <= 0 || !(await sleep(clock, waitMs, core.stopping))) return retry(core, job, 'busy', afterMs);
      await claim([job]);
      answer = job.answer!;
    }
    return handle(job, answer);
  }

  async function useClaim(job: Job, claimed: Claimed, lease: Lease): Promise<Verdict> {
    const unfit = unfitClaim(core, job, claimed.attempt);
    if (unfit) return conclude(core, job, unfit);
    if (!(core.limiter.tryEnter() || (await core.limiter.enter()))) return unstarted(job, 'stopped');
    try {
      if (core.stopping.aborted) return await unstarted(job, 'stopped');
      if (lease.over) return await unstarted(job, 'expired');
      tell('claimed', job, { attempt: claimed.attempt, orphaned: claimed.orphaned });
      const running = runClaimed(job, claimed, lease);
      const ended = running instanceof Promise ? await unlessAbandoned(lease, running) : running;
      if (ended === 'abandoned') return abandon(job, claimed.attempt, running as Promise<Handled | Thrown>);
      return await conclude(core, job, outcome(job, claimed.attempt, ended));
    } finally {
      core.limiter.leave();
    }
  }

  function unstarted(job: Job, reason: 'stopped' | 'expired'): Promise<Verdict> {
    return conclude(core, job, { ending: unstartedEnding, verdict: () => retry(core, job, reason, 0) });
  }

  /** Never rejects. */
  function runClaimed(job: Job, { attempt, fence }: Claimed, lease: Lease): Handled | Thrown | Promise<Handled | Thrown> {
    const steps = store.journal && stepsOf(store.journal, job, fence);
    const own = settings.guarantee === 'fenced' ? { attempt, steps, fence } : { attempt, steps };
    return runHandler(owner, settings, core.handler, job, lease, own);
  }

  function outcome(job: Job, attempt: number, ended: Handled | Thrown): Outcome {
    if ('error' in ended) return outcomeOf(core, job, failureOf(settings, ended.error, attempt, job.lease!), attempt);
    return {
      ending: { as: 'completed', result: ended.encoded },
      verdict: () => completed(job, attempt, ended),
    };
  }

  function stepsOf(journal: GuardedJournal, { key, token }: Job, fence: number): StepSource {
    const claim = { key, token, fence };
    return { journal, claim: async () => claim };
  }

  /**
   * The claim is no longer extended, and is not given back: nobody else may start before the lease has ended. If the handler does end, and nobody
   * has claimed the message since, its outcome still counts.
   */
  function abandon(job: Job, attempt: number, running: Promise<Handled | Thrown>): Verdict {
    const lease = job.lease!;
    const afterMs = lease.remainingMs;
    lease.unclaim();
    const settled = running.then((ended) => store.settle([endOf(core, job, outcome(job, attempt, ended).ending)])).catch(() => {});
    return letGo(job, attempt, settled, afterMs);
  }

  /** The verdict of a handler that goes on running, out of reach, until `ended`. */
  function letGo(job: Job, attempt: number, ended: Promise<unknown>, afterMs: number): Verdict {
    core.loose.add(ended);
    void ended.then(() => core.loose.delete(ended));
    const code = job.lease!.aborted?.code;
    return retry(core, job, code === 'handler-timeout' ? 'timeout' : code === 'stopped' ? 'stopped' : 'fenced', afterMs, { attempt });
  }

  function completed(job: Job, attempt: number, { result, encoded, startedAt, endedAt }: Handled): Verdict {
    core.cache.add(job.key, { fingerprint: job.fingerprint, result: encoded, at: endedAt });
    tell('completed', job, { attempt, durationMs: endedAt - startedAt });
    return { action: 'ack', outcome: 'completed', result };
  }

  /** Waits for the handler until it has been given up. Leaves no timer behind once it has ended. `handled` never rejects. */
  function unlessAbandoned<T>(lease: Lease, handled: Promise<T>): Promise<T | 'abandoned'> {
    return new Promise((resolve) => {
      let ended = false;
      let cancel = () => {};
      lease.whenAborted(() => {
        if (!ended) cancel = clock.after(abandonAfterMs, () => resolve('abandoned'));
      });
      void handled.then((result) => {
        ended = true;
        cancel();
        resolve(result);
      });
    });
  }

  /** `onStoreDown: 'run'`: the user has asked for it by name. Nothing is recorded. */
  async function runUnprotected(job: Job): Promise<Verdict> {
    if (!(await core.limiter.enter())) return retry(core, job, 'stopped', 0);
    const lease = job.lease!;
    try {
      const running = Promise.resolve(runHandler(owner, settings, core.handler, job, lease, { attempt: 1 }));
      const ended = await unlessAbandoned(lease, running);
      if (ended === 'abandoned') return letGo(job, 1, running, settings.leaseMs);
      if ('error' in ended) return outcomeOf(core, job, failureOf(settings, ended.error, 1, lease), 1).verdict();
      tell('completed', job, { attempt: 1, durationMs: ended.endedAt - ended.startedAt });
      return { action: 'ack', outcome: 'completed', result: ended.result };
    } finally {
      core.limiter.leave();
    }
  }

  return run;
}
