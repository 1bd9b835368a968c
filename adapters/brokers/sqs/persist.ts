import { type Clock, sleep } from '../../../src/clock.ts';
import { coalesce } from '../../../src/coalesce.ts';
import type { SqsBatchAnswer } from './client.ts';
import { entryError, isOwnershipLost, isPassingFailure } from './failures.ts';
import { backoffMs, type Link, type SqsActivity, within } from './link.ts';

/** SQS takes ten entries in one batch request. */
export const maxEntries = 10;

/** `lost`: the delivery is not ours any more, so the message comes back. `failed`: given up, outcome unknown. */
export type Outcome = 'done' | 'lost' | 'failed';

/** Entries of one call stay together in one request, in their order, if they are ten at most. Never rejects. */
export type Persist<Entry> = (entries: readonly Entry[]) => Promise<Outcome[]>;

/**
 * How long the first entry waits for others. SQS bills each request, and nobody waits for a delete: its message is done. Ten entries never
 * wait, so it costs no throughput.
 */
const lingerMs = 5;

/**
 * Gathers entries into batch requests, and tries those again that were refused for a passing reason, or whose request failed, until
 * `giveUpMs` after they came. One request is under way at a time; what comes meanwhile goes together in the next one.
 */
export function persist<Entry>(
  link: Link,
  during: SqsActivity,
  giveUpMs: number,
  request: (entries: readonly Entry[], signal: AbortSignal) => Promise<SqsBatchAnswer>,
): Persist<Entry> {
  const { world, report } = link;

  async function send(entries: readonly Entry[]): Promise<(Outcome | 'again')[]> {
    try {
      return outcomes(entries.length, await within(world.clock, link.requestMs, link.over, (signal) => request(entries, signal)));
    } catch (error) {
      if (!link.over.aborted) report(error, during);
      return entries.map(() => 'again');
    }
  }

  /** An entry that the answer does not name at all counts as refused: success is never assumed. */
  function outcomes(count: number, answer: SqsBatchAnswer): (Outcome | 'again')[] {
    const done = new Set(answer.Successful?.map(({ Id }) => Id));
    const failed = new Map(answer.Failed?.map((failure) => [failure.Id, failure]));
    return Array.from({ length: count }, (_, i) => {
      const failure = failed.get(entryId(i));
      if (!failure) return done.has(entryId(i)) ? 'done' : 'again';
      if (isOwnershipLost(failure)) return 'lost';
      report(entryError(during, failure), during);
      return isPassingFailure(failure) ? 'again' : 'failed';
    });
  }

  const linger = lingering(world.clock, link.over);
  const batched = coalesce(send, { maxBatch: maxEntries });

  return async (entries) => {
    const giveUpAt = world.clock.now() + giveUpMs;
    const outcome: Outcome[] = entries.map(() => 'failed');
    let open = entries.map((_, i) => i);
    for (let failures = 0; ; failures++) {
      await linger(open.length);
      const answers = await batched(open.map((i) => entries[i]!));
      const again: number[] = [];
      open.forEach((i, at) => {
        const answer = answers[at]!;
        if (answer === 'again') again.push(i);
        else outcome[i] = answer;
      });
      open = again;
      const delayMs = backoffMs(failures, 5_000, world);
      if (open.length === 0 || world.clock.now() + delayMs >= giveUpAt) return outcome;
      if (!(await sleep(world.clock, delayMs, link.over))) return outcome;
    }
  };
}

/** Resolves when `maxEntries` are waiting here, or `lingerMs` after the first of them came, or when `over` is aborted; for all in one turn. */
function lingering(clock: Clock, over: AbortSignal): (count: number) => Promise<void> {
  const waiting: (() => void)[] = [];
  let size = 0;
  let cancel: (() => void) | undefined;
  const flush = () => {
    cancel?.();
    cancel = undefined;
    over.removeEventListener('abort', flush);
    size = 0;
    for (const resolve of waiting.splice(0)) resolve();
  };
  return (count) =>
    new Promise((resolve) => {
      waiting.push(resolve);
      size += count;
      if (size >= maxEntries || over.aborted) return flush();
      if (cancel) return;
      cancel = clock.after(lingerMs, flush);
      over.addEventListener('abort', flush, { once: true });
    });
}

/** Ids of entries must be distinct in a request. MessageIds are not: a standard queue may hand out a message twice in one batch. */
export function entryId(index: number): string {
  return String(index);
}
