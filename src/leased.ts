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
import { failureOf, type Handled, runHandler } from './handler.ts';
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
    const answers = await store.claim(jobs.map((job) => askOf(job, settings)));
    jobs.forEach((job, i) => {
      job.answer = answers[i]!;
      if (job.answer.state !== 'claimed') return;
      if (job.answer.orphaned) job.orphaned = true;
      else if (job.orphaned) job.answer = { ...job.answer, orphaned: true };
      job.lease!.claim({ key: job.key, token: job.token }, claimedAt);
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
      deliver(job, await verdictOf(job, down));
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

  async function verdictOf(job: Job, down: { readonly error: unknown } | undefined): Promise<Verdict> {
    if (job.preset) return job.preset;
    if (job.follows) return follow(core, job, job.follows.verdict!);
    if (down && !job.answer) return settings.onStoreDown === 'run' ? runUnprotected(job) : storeTrouble(core, job, down.error);
    try {
      if (job.answer) return await handle(job, job.answer);
      if (!(await core.suspects.enter())) return retry(core, job, 'stopped', 0);
      try {
        // It may have waited for long: what can't be used any more need not be counted.
        if (job.lease!.over) return retry(core, job, 'expired', 0);
        await claim([job]);
        return await handle(job, job.answer!);
      } finally {
        core.suspects.leave();
      }
    } catch (error) {
      return storeTrouble(core, job, error);
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
    if (!(await core.limiter.enter())) return unstarted(job, 'stopped');
    try {
      if (core.stopping.aborted) return await unstarted(job, 'stopped');
      if (lease.over) return await unstarted(job, 'expired');
      tell('claimed', job, { attempt: claimed.attempt, orphaned: claimed.orphaned });
      const handled = runClaimed(job, claimed, lease);
      const outcome = await unlessAbandoned(lease, handled);
      return outcome === 'abandoned' ? abandon(job, claimed.attempt, handled) : await conclude(core, job, outcome);
    } finally {
      core.limiter.leave();
    }
  }

  function unstarted(job: Job, reason: 'stopped' | 'expired'): Promise<Verdict> {
    return conclude(core, job, { ending: unstartedEnding, verdict: () => retry(core, job, reason, 0) });
  }

  /** Never rejects. */
  async function runClaimed(job: Job, { attempt, fence }: Claimed, lease: Lease): Promise<Outcome> {
    const steps = store.journal && stepsOf(store.journal, job, fence);
    const own = settings.guarantee === 'fenced' ? { attempt, steps, fence } : { attempt, steps };
    try {
      return completed(job, attempt, await runHandler(owner, settings, core.handler, job, lease, own));
    } catch (error) {
      return outcomeOf(core, job, failureOf(settings, error, attempt, lease), attempt);
    }
  }

  function stepsOf(journal: GuardedJournal, { key, token }: Job, fence: number): StepSource {
    const claim = { key, token, fence };
    return { journal, claim: async () => claim };
  }

  /**
   * The claim is no longer extended, and is not given back: nobody else may start before the lease has ended. If the handler does end, and nobody
   * has claimed the message since, its outcome still counts.
   */
  function abandon(job: Job, attempt: number, handled: Promise<Outcome>): Verdict {
    const lease = job.lease!;
    const afterMs = lease.remainingMs;
    lease.unclaim();
    const settled = handled.then(({ ending }) => store.settle([endOf(core, job, ending)])).catch(() => {});
    return letGo(job, attempt, settled, afterMs);
  }

  /** The verdict of a handler that goes on running, out of reach, until `ended`. */
  function letGo(job: Job, attempt: number, ended: Promise<unknown>, afterMs: number): Verdict {
    core.loose.add(ended);
    void ended.then(() => core.loose.delete(ended));
    const code = job.lease!.aborted?.code;
    return retry(core, job, code === 'handler-timeout' ? 'timeout' : code === 'stopped' ? 'stopped' : 'fenced', afterMs, { attempt });
  }

  function completed(job: Job, attempt: number, { result, encoded, durationMs }: Handled): Outcome {
    return {
      ending: { as: 'completed', result: encoded },
      verdict: () => {
        core.cache.add(job.key, { fingerprint: job.fingerprint, result: encoded, at: clock.now() });
        tell('completed', job, { attempt, durationMs });
        return { action: 'ack', outcome: 'completed', result };
      },
    };
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
      const handled = runHandler(owner, settings, core.handler, job, lease, { attempt: 1 }).then(
        ({ result, durationMs }) =>
          (): Verdict => {
            tell('completed', job, { attempt: 1, durationMs });
            return { action: 'ack', outcome: 'completed', result };
          },
        (error: unknown) => outcomeOf(core, job, failureOf(settings, error, 1, lease), 1).verdict,
      );
      const verdict = await unlessAbandoned(lease, handled);
      return verdict === 'abandoned' ? letGo(job, 1, handled, settings.leaseMs) : verdict();
    } finally {
      core.limiter.leave();
    }
  }

  return run;
}
