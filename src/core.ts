import type { CompletedCache } from './cache.ts';
import { sleep } from './clock.ts';
import { describeError, printable, ReceiverError } from './errors.ts';
import type { Tell } from './events.ts';
import type { Gate } from './gate.ts';
import type { GuardedStore } from './guarded-store.ts';
import type { AnyHandler, Failure } from './handler.ts';
import type { Job } from './job.ts';
import type { Leases } from './lease.ts';
import type { Limiter } from './limiter.ts';
import type { DeadLetterReason, RetryReason, Verdict } from './message.ts';
import type { ReceiverSettings } from './options.ts';
import type { Answer, End, Ending } from './store.ts';

/** What both ways through the receiver share. */
export interface Core {
  readonly settings: ReceiverSettings;
  readonly handler: AnyHandler;
  readonly tell: Tell;
  readonly gate: Gate;
  readonly cache: CompletedCache;
  readonly leases: Leases;
  readonly limiter: Limiter;
  /** A message whose last owner died may be what killed it, so such messages run one at a time, each counted alone. */
  readonly suspects: Limiter;
  /** Absent where the store has only transactions. */
  readonly store: Pick<GuardedStore, 'claim' | 'settle' | 'journal'> | undefined;
  /** Where the steps of transactional handlers are kept, if anywhere. */
  readonly journal: GuardedStore | undefined;
  /** Handlers that were given up, until they have ended and what became of them is recorded. */
  readonly loose: Set<Promise<unknown>>;
  /** Aborted when `stop` begins: nothing new is started. */
  readonly stopping: AbortSignal;
  /** Aborted when the grace of `stop` is over: nothing is waited for. */
  readonly stopped: AbortSignal;
}

/** One of the two ways through the receiver: brings the jobs of each lane to their verdicts, in order. Never rejects. */
export type Way = (lanes: readonly (readonly Job[])[]) => Promise<void>;

/** Gives a job its verdict, once. */
export function deliver(job: Job, verdict: Verdict): void {
  if (job.verdict) return;
  job.verdict = verdict;
  job.lease?.end();
  try {
    const returned: unknown = job.source.settled?.(job.delivery, verdict);
    if (returned instanceof Promise) returned.catch(() => {});
  } catch {
    // `settled` must not throw; the verdict is in the answer of `process` all the same.
  }
}

export function retry(core: Core, job: Job, reason: RetryReason, afterMs: number, extra?: { attempt?: number; error?: unknown }): Verdict {
  core.tell('released', job, { reason, afterMs, attempt: extra?.attempt ?? 0, error: extra?.error });
  return extra && 'error' in extra ? { action: 'retry', reason, afterMs, error: extra.error } : { action: 'retry', reason, afterMs };
}

function deadLetter(core: Core, job: Job, verdict: Verdict & { action: 'dead-letter' }): Verdict {
  core.tell('parked', job, { reason: verdict.reason, detail: verdict.detail, attempts: verdict.attempts });
  return verdict;
}

export function storeTrouble(core: Core, job: Job, error: unknown): Verdict {
  return retry(core, job, 'store', core.gate.pauseMs(), { error });
}

/** Another worker runs the message. */
export function busy(core: Core, job: Job, remainingMs: number): Verdict {
  core.tell('busy', job, { remainingMs });
  return retry(core, job, 'busy', Math.round(remainingMs));
}

/** The store answers, but what it holds can't be used until people have repaired it: the message must not bounce until then. */
function unreadable(core: Core, job: Job, error: ReceiverError): Verdict {
  return retry(core, job, 'store', core.settings.backoff.maxMs, { error });
}

/** The verdict of a copy within a batch: that of the job it follows. */
export function follow(core: Core, job: Job, leader: Verdict): Verdict {
  if (leader.action !== 'ack') return leader;
  core.tell('duplicate', job, { kind: 'batch', ageMs: 0 });
  return { ...leader, outcome: 'duplicate' };
}

/** The verdict of a job behind one that has to be tried again: it must wait too, and a copy of that one comes back with it. */
export function behind(core: Core, job: Job, blocker: Job, verdict: Verdict = blocker.verdict!): Verdict {
  const { afterMs } = verdict as Verdict & { action: 'retry' };
  return job.follows === blocker ? verdict : retry(core, job, 'order', afterMs);
}

/** The verdict for answers that need no handler; undefined for `claimed` and `busy`. */
export function verdictFor(core: Core, job: Job, answer: Answer): Verdict | undefined {
  const { settings } = core;
  switch (answer.state) {
    case 'completed': {
      let result: unknown;
      if (settings.results && answer.result !== undefined) {
        try {
          result = settings.codec.decode(answer.result);
        } catch (cause) {
          const why = `The stored result can't be decoded: ${describeError(cause)}`;
          return unreadable(core, job, new ReceiverError('codec', why, { cause }));
        }
      }
      core.cache.add(job.key, {
        fingerprint: job.fingerprint,
        result: answer.result,
        at: settings.world.clock.now() - answer.ageMs,
      });
      core.tell('duplicate', job, { kind: 'completed', ageMs: answer.ageMs });
      return { action: 'ack', outcome: 'duplicate', result };
    }
    case 'parked':
      return deadLetter(core, job, {
        action: 'dead-letter',
        reason: answer.reason as DeadLetterReason,
        detail: answer.detail,
        attempts: answer.attempts,
      });
    case 'mismatch': {
      core.tell('mismatch', job, {});
      if (settings.onMismatch === 'retry') return retry(core, job, 'mismatch', settings.backoff.maxMs);
      const detail = 'A message with this key and another payload has been received before';
      return deadLetter(core, job, { action: 'dead-letter', reason: 'mismatch', detail, attempts: 0 });
    }
    case 'claimed':
    case 'busy':
      return undefined;
    default:
      // `corrupt`, or nonsense: never taken for absent, never acked.
      return unreadable(core, job, new ReceiverError('store', `The record can't be read: ${JSON.stringify(answer)}`));
  }
}

export type Claimed = Extract<Answer, { state: 'claimed' }>;

/** What is to become of a claim, and the verdict that follows once it has. */
export interface Outcome {
  readonly ending: Ending;
  readonly verdict: () => Verdict;
}

/** Whether a claim that was just given must not be used: its message is parked without being run. */
export function unfitClaim(core: Core, job: Job, attempt: number): Outcome | undefined {
  const { settings } = core;
  const park = (reason: DeadLetterReason, detail: string): Outcome => ({
    ending: parked(core, job, reason, detail),
    verdict: () => deadLetter(core, job, { action: 'dead-letter', reason, detail, attempts: attempt - 1 }),
  });
  if (attempt > settings.maxAttempts) {
    return park('max-attempts', `${attempt - 1} attempts were started, and the last of them never ended`);
  }
  const { sentAtMs } = job.delivery;
  if (attempt > 1 || sentAtMs === undefined || settings.onTooOld === 'process') return undefined;
  const ageMs = settings.world.clock.wall() - sentAtMs;
  if (ageMs <= settings.retentionMs) return undefined;
  const remembered = `messages are remembered for ${settings.retentionMs / 1000} s`;
  return park('too-old', `Sent ${Math.round(ageMs / 1000)} s ago, but ${remembered}`);
}

export function outcomeOf(core: Core, job: Job, failure: Failure, attempt: number): Outcome {
  if ('park' in failure) {
    const { park: reason, detail, error } = failure;
    return {
      ending: parked(core, job, reason, detail),
      verdict: () => deadLetter(core, job, { action: 'dead-letter', reason, detail, attempts: attempt, error }),
    };
  }
  return {
    ending: { as: 'released', counted: failure.counted },
    verdict: () => retry(core, job, failure.retry, failure.afterMs, { attempt, error: failure.error }),
  };
}

function parked(core: Core, job: Job, reason: DeadLetterReason, detail: string): Ending {
  return { as: 'parked', reason, detail, label: printable([core.settings.scope, ...[job.id].flat()].join(' '), 256) };
}

/** The handler was not started, so the attempt is given back. */
export const unstartedEnding: Ending = { as: 'released', counted: false };

export function endOf({ settings }: Core, { key, token }: Job, ending: Ending): End {
  return { key, token, retainMs: settings.retentionMs, ...ending };
}

const firstSettleRetryMs = 50;

/**
 * Ends a claim for good before its verdict is given. While the store can't be reached it is tried again for one lease: the
 * token decides whether it still counts. Never rejects.
 */
export async function conclude(core: Core, job: Job, { ending, verdict }: Outcome): Promise<Verdict> {
  const { settings } = core;
  const { clock } = settings.world;
  const end = endOf(core, job, ending);
  let giveUpAt: number | undefined;
  try {
    for (let waitMs = firstSettleRetryMs; ; waitMs = Math.min(waitMs * 2, 2_000)) {
      try {
        const [settled] = await core.store!.settle([end]);
        if (settled === 'ok') return verdict();
        core.tell('fenced', job, { attempt: job.answer?.state === 'claimed' ? job.answer.attempt : 0 });
        return retry(core, job, 'fenced', settings.leaseMs / 2);
      } catch (error) {
        giveUpAt ??= clock.now() + settings.leaseMs;
        const again = clock.now() + waitMs < giveUpAt && (await sleep(clock, waitMs, core.stopped));
        if (!again) return storeTrouble(core, job, error);
      }
    }
  } finally {
    job.lease!.unclaim();
  }
}
