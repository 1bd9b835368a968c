import { sleep } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import type { Receiver } from '../../../src/receiver.ts';
import type { Arrival } from './arrival.ts';
import { commits } from './commits.ts';
import { deadLettering } from './dead-letter.ts';
import { backoffMs, type Report, unlessAborted } from './link.ts';
import type { Membership } from './membership.ts';
import { OffsetTracker } from './offsets.ts';
import type { CheckedOptions } from './options.ts';
import { type PartitionRunner, partitionRunner } from './partition.ts';
import { groupOffsets, type Progress, transactionProgress, watermarkProgress } from './progress.ts';

/** A partition that is assigned to the consumer. */
export interface Assignment {
  /** Aborted when it is lost or given back. */
  readonly over: AbortSignal;
  /** Undefined if it was over, or nothing more was to be begun, before it was ready. */
  readonly runner: Promise<PartitionRunner | undefined>;
  /** Whether the first fetch began behind what counts: kafkajs has read the committed offset before the fence, or was moved. Told once. */
  isAhead(runner: PartitionRunner): boolean;
  /** Fetches no more until half of the window is free again. */
  pauseIfFull(runner: PartitionRunner): void;
}

/** The partitions of one consumer. One that is lost and assigned again begins anew, with what is known then. */
export interface Assignments {
  /** The assignment that what arrived belongs to; it begins with the first arrival. */
  of(name: string, arrival: Arrival): Assignment;
  /** Begins nothing more; what runs goes on. */
  halt(): void;
  /** All are lost. `expelled`: others have them already. */
  close(expelled: boolean): void;
  /** Of those that were lost last: where there is something to read, and below which all is done. */
  before(): readonly Place[];
  /** Resolves when nothing runs and what is done has been committed. */
  drained(): Promise<void>;
  /** Resolves when all that were closed have been given back. */
  left(): Promise<void>;
  /** Whether an offset is being committed. */
  isCommitting(): boolean;
}

export interface Place {
  readonly topic: string;
  readonly partition: number;
  readonly from: number;
}

interface Open extends Assignment {
  readonly stop: AbortController;
  /** Aborted when nothing is to be begun any more. */
  readonly halt: AbortController;
  readonly progress: Progress;
  progressed(): OffsetTracker;
  ready: PartitionRunner | undefined;
  /** The latest one. */
  arrival: Arrival;
  resume: (() => void) | undefined;
}

export function assignments(receiver: Receiver, options: CheckedOptions, member: () => Membership, report: Report): Assignments {
  const { transactions, window } = options;
  const watermark = options.watermark?.watermark;
  const { clock } = receiver.world;
  const putAside = deadLettering(options.deadLetter, receiver.world, report);
  const open = new Map<string, Open>();
  /** Those that are being given back: they begin again only after that. */
  const leaving = new Map<string, Promise<unknown>>();
  let before: Place[] = [];
  let committing = 0;

  function close(name: string, expelled: boolean): void {
    const assignment = open.get(name);
    if (!assignment) return;
    open.delete(name);
    assignment.stop.abort();
    assignment.halt.abort();
    assignment.ready?.close(expelled);
    // kafkajs keeps a partition paused over a rebalance.
    assignment.resume?.();
    assignment.resume = undefined;
    const revoked = assignment.progress.revoke().catch((error: unknown) => report(error, 'assign'));
    const left = Promise.all([revoked, assignment.runner]).finally(() => leaving.get(name) === left && leaving.delete(name));
    leaving.set(name, left);
  }

  function begin(name: string, arrival: Arrival, next: number): Open {
    const stop = new AbortController();
    const halt = new AbortController();
    const { topic, partition, from } = arrival;
    let tracker = new OffsetTracker({ next, done: [] });
    const progress = progressOf(name, topic, partition, () => tracker);
    let aligned = transactions === undefined && from <= next;

    async function assign(): Promise<PartitionRunner | undefined> {
      await leaving.get(name);
      for (let failures = 0; !halt.signal.aborted; failures++) {
        // Whoever takes over again without a proof might take the partition from its rightful owner.
        if (failures > 0 && !(await unlessAborted(halt.signal, member().proven()))) return undefined;
        try {
          const known = await progress.assign();
          if (stop.signal.aborted) return undefined;
          if (known && arrival.end !== undefined && known.next > arrival.end) {
            report(madeAgain(name, known.next, arrival.end), 'assign');
            // The next fetch tells the end anew.
            close(name, false);
            return undefined;
          }
          if (known) tracker = new OffsetTracker(known);
          const ready = runner();
          assignment.ready = ready;
          // A group without offsets that reads from the end would begin behind its first messages if it died before they are done.
          await ready.commits?.flush();
          return ready;
        } catch (error) {
          if (stop.signal.aborted) return undefined;
          report(error, 'assign');
          await sleep(clock, backoffMs(failures, 30_000, receiver.world), halt.signal);
        }
      }
      return undefined;
    }

    async function commit(next: number): Promise<void> {
      committing++;
      try {
        await assignment.arrival.commit(String(next));
      } catch (error) {
        member().refused(error);
        throw error;
      } finally {
        committing--;
      }
    }

    function resume(): void {
      assignment.resume?.();
      assignment.resume = undefined;
    }

    function runner(): PartitionRunner {
      return partitionRunner({
        receiver,
        name,
        tracker,
        progress,
        commits: progress.consumerOffsets ? commits({ clock, next: () => tracker.next, commit, report }) : undefined,
        maxInFlight: options.maxInFlight,
        suspectsBelow: arrival.end ?? Number.POSITIVE_INFINITY,
        report,
        putAside,
        advanced: () => tracker.span <= window / 2 && resume(),
        lost() {
          report(
            new ReceiverError('claim-lost', `Somebody else has taken ${name}; it is left alone until the group assigns it again`),
            'assign',
          );
          assignment.ready?.close(true);
        },
      });
    }

    const assignment: Open = {
      over: stop.signal,
      stop,
      halt,
      progress,
      progressed: () => tracker,
      arrival,
      ready: undefined,
      resume: undefined,
      runner: Promise.resolve().then(assign),
      isAhead(ready) {
        if (aligned) return false;
        aligned = true;
        return from > ready.tracker.next;
      },
      pauseIfFull(ready) {
        if (ready.tracker.span >= window && !assignment.resume) assignment.resume = assignment.arrival.pause();
      },
    };
    return assignment;
  }

  function progressOf(name: string, topic: string, partition: number, tracker: () => OffsetTracker): Progress {
    if (transactions) return transactionProgress(transactions, { topic, partition }, tracker, member().proven);
    if (!watermark) return groupOffsets;
    const row = `${topic}@${watermark.topicEpoch}/${partition}/${member().groupId()}`;
    return watermarkProgress(watermark, row, name, tracker, receiver.world);
  }

  /**
   * Whether the consumer was moved back: by its user, or by kafkajs, because the log ends before where it was to be read: the topic was made again, or a
   * broker that had not all of it leads it now. Then its next messages are others than those that were done. What a row or a transaction keeps is not
   * undone by a move, but must not be beyond the end.
   */
  function isMovedBack({ progress, progressed }: Open, { from, end = Number.POSITIVE_INFINITY }: Arrival): boolean {
    return progress === groupOffsets ? from < progressed().position : end < progressed().next;
  }

  return {
    of(name, arrival) {
      const known = open.get(name);
      if (known && !isMovedBack(known, arrival)) {
        known.arrival = arrival;
        return known;
      }
      let next = arrival.from;
      if (known) {
        const { position } = known.progressed();
        if (arrival.end !== undefined && arrival.end < position) report(madeAgain(name, position, arrival.end), 'assign');
        // There may be something before it that waits for its next try.
        next = Math.min(next, known.progressed().next);
      }
      close(name, false);
      const assignment = begin(name, arrival, next);
      open.set(name, assignment);
      return assignment;
    },
    halt() {
      for (const { halt, ready } of open.values()) {
        halt.abort();
        ready?.halt();
      }
    },
    before() {
      return before;
    },
    close(expelled) {
      if (open.size > 0) before = [...open.values()].map(placeOf);
      for (const name of [...open.keys()]) close(name, expelled);
    },
    async drained() {
      await Promise.all(
        [...open.values()].map(async ({ ready }) => {
          await ready?.idle();
          await ready?.commits?.flush();
        }),
      );
    },
    async left() {
      await Promise.all(leaving.values());
    },
    isCommitting() {
      return committing > 0;
    },
  };
}

function placeOf({ arrival: { topic, partition, from }, progressed }: Open): Place {
  return { topic, partition, from: Math.min(from, progressed().next) };
}

function madeAgain(name: string, next: number, end: number): ReceiverError {
  const text = `Expected partition ${name} to reach offset ${next}, up to which it was read, got ${end} as its end: was the topic made again? Then change \`topicEpoch\``;
  return new ReceiverError('broker', text);
}
