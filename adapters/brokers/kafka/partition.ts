import { sleep } from '../../../src/clock.ts';
import { isClaimLost } from '../../../src/errors.ts';
import type { Source, Verdict } from '../../../src/message.ts';
import type { Receiver } from '../../../src/receiver.ts';
import type { Commits } from './commits.ts';
import type { KafkaDelivery } from './delivery.ts';
import { lanes } from './lanes.ts';
import { backoffMs, type Report } from './link.ts';
import type { OffsetTracker } from './offsets.ts';
import type { Progress } from './progress.ts';

/** Handles the messages of one partition, from its assignment to its loss. */
export interface PartitionRunner {
  /** Takes messages in the order of their offsets; those that are done already are skipped. `reach`: the offset behind the last of them. */
  take(deliveries: readonly KafkaDelivery[], reach: number): void;
  /** Resolves when all that has been taken is handled or waits for its next try, or the runner is closed. */
  idle(): Promise<void>;
  /** Begins nothing more; what runs goes on. */
  halt(): void;
  /**
   * The partition is not ours any more, or the adapter is stopping. What runs goes on under its claims, which whoever is next respects; if this consumer
   * was put out (`expelled`) it is given up.
   */
  close(expelled: boolean): void;
  closed(): boolean;
  /** It begins nothing more: the group is rebalancing, or the receiver has been stopped. */
  halted(): boolean;
  readonly tracker: OffsetTracker;
  readonly commits: Commits | undefined;
}

export interface PartitionSettings {
  readonly receiver: Receiver;
  readonly name: string;
  readonly tracker: OffsetTracker;
  readonly progress: Progress;
  readonly commits: Commits | undefined;
  /** Messages that the receiver has at once. */
  readonly maxInFlight: number;
  /** Offsets below it may have been delivered before. */
  readonly suspectsBelow: number;
  readonly report: Report;
  putAside(delivery: KafkaDelivery, verdict: Extract<Verdict, { action: 'dead-letter' }>, over: AbortSignal): Promise<boolean>;
  /** Something may have been finished. */
  advanced(): void;
  /** A commit was refused because somebody else has the partition. */
  lost(): void;
}

/**
 * In transactional mode a process that dies takes the count of its attempts with it, so what may have killed one has to be counted beforehand, which
 * costs a claim for each group, and a transaction for each message that had been counted before. So many messages after an assignment are counted, and nothing beyond them is begun before the offsets
 * that they free are committed: whatever comes again and again moves on by so many each time, until the one that kills is among them.
 */
const suspectsAtOnce = 100;

/** A message that is to come again at once must not make a hot loop. */
const minRetryMs = 20;

export function partitionRunner(settings: PartitionSettings): PartitionRunner {
  const { receiver, tracker, progress, commits, maxInFlight, report } = settings;
  const { clock } = receiver.world;
  const over = new AbortController();
  /** Aborted if others have the partition already. */
  const taken = new AbortController();
  const queue = lanes(clock, () => feed());
  const answered = new WeakSet<KafkaDelivery>();
  let inFlight = 0;
  let halted = false;
  let suspects = receiver.guarantee === 'transactional' ? suspectsAtOnce : 0;
  /** The suspects are being handled. */
  let proving = false;
  /** A commit was refused: what is done has to be asked for first. */
  let stale = false;
  let keeping: Promise<void> | undefined;
  const waiting: (() => void)[] = [];
  /** What broke the store's last call: its messages share one error. */
  let told: unknown;

  const source: Source<KafkaDelivery> = {
    partition: settings.name,
    lost: taken.signal,
    settled,
    ...(progress.committing && { committing: progress.committing }),
  };

  function feed(): void {
    while (!halted && !over.signal.aborted && !stale && !keeping && inFlight <= maxInFlight / 2) {
      const chunk = queue.take(room(), (delivery) => tracker.isOpen(delivery.offset));
      if (chunk.length === 0) break;
      inFlight += chunk.length;
      void process(chunk.map(marked));
    }
    if (inFlight === 0 && !keeping && !over.signal.aborted && needsQuiet()) {
      keeping = keepQuiet().finally(() => {
        keeping = undefined;
        feed();
      });
    }
    if (isIdle()) for (const resolve of waiting.splice(0)) resolve();
  }

  function room(): number {
    if (proving) return 0;
    const free = maxInFlight - inFlight;
    if (suspects === 0) return free;
    const next = queue.first();
    return next !== undefined && next < settings.suspectsBelow ? Math.min(free, suspects) : free;
  }

  function marked(delivery: KafkaDelivery): KafkaDelivery {
    if (suspects === 0 || delivery.redelivered || delivery.offset >= settings.suspectsBelow) return delivery;
    if (--suspects === 0) proving = true;
    return { ...delivery, redelivered: true };
  }

  /** What can be done only while nothing is in flight. */
  async function quiet(): Promise<void> {
    if (stale) {
      if (!(await progress.reload!())) return settings.lost();
      stale = false;
      soon();
    }
    if (proving) {
      await commits?.flush();
      proving = false;
    }
    if (progress.isBehind?.()) await progress.keep!();
  }

  /** Somebody else may have the partition, or a transaction that seemed to fail has committed. */
  function suspect(): void {
    stale ||= progress.reload !== undefined;
  }

  function needsQuiet(): boolean {
    return stale || proving || (progress.isBehind?.() ?? false);
  }

  async function keepQuiet(): Promise<void> {
    for (let failures = 0; !over.signal.aborted && needsQuiet(); failures++) {
      try {
        await quiet();
      } catch (error) {
        if (isClaimLost(error)) suspect();
        report(error, 'progress');
        await sleep(clock, backoffMs(failures, 10_000, receiver.world), over.signal);
      }
    }
  }

  async function process(chunk: readonly KafkaDelivery[]): Promise<void> {
    let verdicts: readonly Verdict[] = [];
    try {
      if (await receiver.ready(over.signal)) verdicts = await receiver.process(chunk, source);
      else verdicts = chunk.map(() => ({ action: 'retry', reason: 'stopped', afterMs: 0 }));
    } catch (error) {
      report(error, 'process');
    }
    // For a receiver that breaks its promise to answer.
    const unknown: Verdict = { action: 'retry', reason: 'store', afterMs: 1_000 };
    chunk.forEach((delivery, i) => settled(delivery, verdicts[i] ?? unknown));
  }

  function settled(delivery: KafkaDelivery, verdict: Verdict): void {
    if (answered.has(delivery)) return;
    answered.add(delivery);
    inFlight--;
    progress.settled?.(delivery, verdict);
    if (verdict.action === 'retry') {
      if (verdict.reason === 'stopped') halt();
      if (verdict.reason === 'fenced') suspect();
      if (verdict.reason === 'store') tellOnce(verdict.error);
      // Those behind a failure wait for it, and for no time of their own.
      queue.giveBack({ ...delivery, redelivered: true }, verdict.reason === 'order' ? 0 : Math.max(minRetryMs, verdict.afterMs));
    } else {
      queue.done(delivery);
      if (verdict.action === 'ack') tracker.finish(delivery.offset);
      else void putAside(delivery, verdict);
    }
    soon();
  }

  function tellOnce(error: unknown): void {
    if (error !== told) report(error, 'process');
    told = error;
  }

  let scheduled = false;
  /** Something may have been finished. Verdicts come in bunches, and what follows from them costs more than they do. */
  function soon(): void {
    if (scheduled) return;
    scheduled = true;
    queueMicrotask(() => {
      scheduled = false;
      commits?.advanced();
      settings.advanced();
      feed();
    });
  }

  async function putAside(delivery: KafkaDelivery, verdict: Extract<Verdict, { action: 'dead-letter' }>): Promise<void> {
    if (!(await settings.putAside(delivery, verdict, over.signal))) return;
    tracker.finish(delivery.offset);
    soon();
  }

  function halt(): void {
    halted = true;
    queue.stop();
    feed();
  }

  function isIdle(): boolean {
    return over.signal.aborted || (inFlight === 0 && !keeping && (halted || !queue.isReady()));
  }

  return {
    tracker,
    commits,
    halt,
    halted() {
      return halted;
    },
    closed() {
      return over.signal.aborted;
    },
    take(deliveries, reach) {
      queue.add(deliveries.filter((delivery) => tracker.take(delivery.offset)));
      tracker.reach(reach);
      commits?.advanced();
      feed();
    },
    async idle() {
      while (!isIdle()) await new Promise<void>((resolve) => waiting.push(resolve));
    },
    close(expelled) {
      over.abort();
      if (expelled) taken.abort();
      commits?.close();
      halt();
    },
  };
}
