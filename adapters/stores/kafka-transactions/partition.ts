import { sleep, type World } from '../../../src/clock.ts';
import { digest } from '../../../src/digest.ts';
import { describeError, isClaimLost, ReceiverError } from '../../../src/errors.ts';
import type { Key, TransactionalStore } from '../../../src/store.ts';
import { isFenced, isPassing, type KafkaTransaction, type TopicPartition } from './client.ts';
import { memory } from './memory.ts';
import { chunksOf, type KafkaTx, type OutgoingLimits } from './outgoing.ts';
import { after, free, type Probation } from './probation.ts';
import type { Producers } from './producers.ts';
import type { LogReader } from './reader.ts';
import { decodeRecord, encodeRecord, entriesOf, type Kind, type LogRecord } from './record.ts';
import { type Serial, serial } from './serial.ts';
import type { Topics } from './topics.ts';
import { type Changes, openUnit } from './unit.ts';
import { within } from './within.ts';

/** One partition of the input topic, as long as this process remembers it. */
export interface OwnedPartition {
  assign(): Promise<{ readonly offset: string | undefined }>;
  revoke(): Promise<void>;
  readonly unit: TransactionalStore<KafkaTx>['unit'];
  /** Lets a parked message be tried again. False if it is not parked here, or the partition is not owned. */
  replay(key: Key): Promise<boolean>;
  /** When it was given back, on the monotonic clock; undefined while it is owned. */
  readonly revokedAt: number | undefined;
  readonly ids: { readonly size: number; readonly bytes: number };
}

export interface PartitionOptions {
  readonly of: TopicPartition;
  readonly groupId: string;
  readonly retentionMs: number;
  readonly flushTimeoutMs: number;
  readonly takeOverTimeoutMs: number;
  readonly maxRequestBytes: number;
  readonly compression: number | undefined;
  readonly limits: OutgoingLimits;
  readonly producers: Producers;
  readonly reader: LogReader;
  readonly topics: Topics;
  /** Messages that are taken alone, in whatever partition, are taken one after another. */
  readonly alone: Serial;
  readonly world: World;
}

/** From one `assign` to the next, or until the partition is lost. */
interface Term {
  /** Why nothing of it may commit any more. */
  lost: ReceiverError | undefined;
  /** Counts the units that did not commit: what began before one of them is built on it. */
  failures: number;
  /** A failure is being told: nothing is begun before that. */
  telling: Promise<void> | undefined;
  /** What units are about to commit, the oldest first. */
  readonly pending: Changes[];
  /** One unit's handlers after another's. Those of an earlier term may hang. */
  readonly working: Serial;
}

/** What was in the log. */
interface Found {
  wanted: boolean;
  /** Another take-over of the partition than this one: it was assigned to somebody. */
  assigned: boolean;
}

function newTerm(lost: ReceiverError | undefined): Term {
  return { lost, failures: 0, telling: undefined, pending: [], working: serial() };
}

/** How long a partition's end waits for the broker to be told. */
const farewellMs = 2_000;

const none = new Int32Array(0);

export function ownedPartition(options: PartitionOptions): OwnedPartition {
  const { of, producers, world, topics } = options;
  const { clock, random } = world;
  const name = `${of.topic}/${of.partition}`;
  const known = memory({ retentionMs: options.retentionMs });
  const committing = serial();
  /** Up to here the log is in memory. */
  let position: string | undefined;
  let term = newTerm(notAssigned());
  /** What is being assigned. */
  let coming: Term | undefined;
  let revokedAt: number | undefined;
  /** The log may say that this process has the partition, and does not say yet that it was given back. */
  let hasBegun = false;

  function notAssigned(): ReceiverError {
    return new ReceiverError('claim-lost', `Expected partition ${name} to be assigned to this process`);
  }

  /** The end of a term: only a new `assign`, which is the proof that the partition is ours, makes new producers. */
  function lose(at: Term, why: string, cause: unknown): ReceiverError {
    at.lost = new ReceiverError('claim-lost', `Partition ${name} is lost: ${why}`, { cause });
    return at.lost;
  }

  // A token is a text of whatever characters.
  const newId = (): Buffer => Buffer.from(digest([random.token()], 22), 'base64url');

  function recordOf(kind: Kind, rest: Partial<LogRecord> = {}): LogRecord {
    return { kind, id: newId(), probation: free, entries: none, notes: [], ...rest };
  }

  /** One transaction, up to its commit. Answers where the next record of the log will be, at the earliest. */
  async function write(record: LogRecord, changes?: Changes, limitMs = options.flushTimeoutMs): Promise<string | undefined> {
    const log = {
      topic: options.limits.dedupLog,
      message: { key: `${options.groupId}/${of.topic}`, value: encodeRecord(record), partition: of.partition },
    };
    return within(clock, limitMs, 'a transaction to be sent', async (isLate) => {
      const step = <T>(run: () => Promise<T>): Promise<T> => {
        if (isLate()) throw new ReceiverError('store', 'The transaction was given up');
        return run();
      };
      const tx = await step(() => producers.begin());
      const chunks = chunksOf(changes?.outgoing ?? [], options.maxRequestBytes);
      for (const chunk of chunks.slice(0, -1)) await step(() => sendAll(tx, chunk));
      const sent = await step(() => sendAll(tx, [...(chunks.at(-1) ?? []), log]));
      if (changes?.offset !== undefined) await step(() => sendOffset(tx, changes.offset!, isLate));
      await step(() => tx.commit());
      const at = sent.find(({ topicName, partition }) => topicName === log.topic && partition === of.partition)?.baseOffset;
      return at === undefined ? undefined : String(BigInt(at) + 1n);
    });
  }

  function sendAll(tx: KafkaTransaction, list: readonly { readonly topic: string; readonly message: unknown }[]) {
    const byTopic = Map.groupBy(list, ({ topic }) => topic);
    const topicMessages = [...byTopic].map(([topic, each]) => ({ topic, messages: each.map(({ message }) => message) }));
    return tx.sendBatch({ acks: -1, topicMessages, ...(options.compression === undefined ? {} : { compression: options.compression }) });
  }

  async function sendOffset(tx: KafkaTransaction, offset: string, isLate: () => boolean): Promise<void> {
    const offsets = { consumerGroupId: options.groupId, topics: [{ topic: of.topic, partitions: [{ partition: of.partition, offset }] }] };
    for (let waitMs = 10; ; waitMs = Math.min(waitMs * 2, 500)) {
      try {
        return await tx.sendOffsets(offsets);
      } catch (error) {
        if (!isPassing(error) || isLate()) throw error;
        await sleep(clock, waitMs);
      }
    }
  }

  /** Reads what is in the log from `position` to a record of this very take-over. */
  async function catchUp(until: Buffer, wanted: Buffer | undefined, found: Found): Promise<void> {
    const low = await topics.low(of.partition);
    const from =
      position !== undefined && BigInt(position) >= BigInt(low)
        ? position
        : await topics.start(of.partition, clock.wall() - options.retentionMs);
    await options.reader.read(of.partition, from, ({ key, value, timestamp, offset }) => {
      const where = `offset ${offset} of ${options.limits.dedupLog}/${of.partition}`;
      if (key?.toString() !== `${options.groupId}/${of.topic}`)
        throw new ReceiverError(
          'broker',
          `Expected ${where} to be of group and topic ${options.groupId}/${of.topic}, got ${key}: each needs a dedup log of its own`,
        );
      const record = decodeRecord(value, where);
      known.apply(record, Number(timestamp));
      position = String(BigInt(offset) + 1n);
      if (wanted && record.id.equals(wanted)) found.wanted = true;
      if (record.id.equals(until)) return true;
      if (record.kind === 'assigned') found.assigned = true;
      return false;
    });
  }

  /**
   * Fence, then read. New producers with the same ids: what an older one had begun is ended by the broker, and nothing else of it can commit. The
   * log is then read up to a record that was written after the fence, so all that did commit is known.
   */
  async function takeOver(at: Term, wanted?: Buffer): Promise<Found> {
    const giveUpAt = clock.now() + options.takeOverTimeoutMs;
    // What was read before a try broke off is not read again.
    const found: Found = { wanted: false, assigned: false };
    for (let waitMs = 50; ; waitMs = Math.min(waitMs * 2, 1_000)) {
      try {
        // Given back meanwhile: whoever has it now would be fenced.
        if (at.lost) throw at.lost;
        await within(clock, Math.max(1, giveUpAt - clock.now()), 'new producers', () => producers.fence());
        const mark = recordOf('mark');
        await write(mark);
        await catchUp(mark.id, wanted, found);
        return found;
      } catch (error) {
        if (at.lost) throw at.lost;
        if (isFenced(error) || (error instanceof ReceiverError && error.code === 'broker') || clock.now() + waitMs >= giveUpAt) throw error;
        await sleep(clock, waitMs);
      }
    }
  }

  /** The last of a take-over: nobody has died if what is before it has to be tried again, or is not wanted any more. */
  async function begin(at: Term): Promise<void> {
    if (at.lost) throw at.lost;
    const record = recordOf('assigned');
    // In the log even if only the answer is lost.
    hasBegun = true;
    position = (await write(record)) ?? position;
    known.apply(record, clock.wall());
    if (at.lost) throw at.lost;
  }

  /** Brings the changes of a unit into the log. Resolves only if they have committed. */
  async function flush(at: Term, record: LogRecord, changes?: Changes): Promise<void> {
    if (at.lost) throw at.lost;
    try {
      position = (await write(record, changes)) ?? position;
    } catch (cause) {
      if (isFenced(cause)) throw lose(at, 'its producers are fenced, or their transaction took too long', cause);
      // Given back meanwhile: whoever has it now would be fenced.
      if (at.lost) throw at.lost;
      if (!(await settled(at, record.id, cause)))
        throw new ReceiverError('store', `The transaction did not commit: ${describeError(cause)}`, { cause });
    }
    known.apply(record, clock.wall());
  }

  /** Whether a unit has committed that was left in doubt. */
  async function settled(at: Term, id: Buffer, cause: unknown): Promise<boolean> {
    try {
      const found = await takeOver(at, id);
      // Whoever it was is fenced now, and has to have it assigned anew; but what that one has committed is not this one's to go on from.
      if (found.assigned) lose(at, 'it was assigned to somebody else meanwhile', cause);
      if (at.lost && !found.wanted) throw at.lost;
      return found.wanted;
    } catch (error) {
      if (error === at.lost) throw error;
      const lost = lose(at, `its last transaction is in doubt, and could not be settled: ${describeError(error)}`, cause);
      throw isFenced(error) || isClaimLost(error) ? lost : new ReceiverError('commit-in-doubt', lost.message, { cause });
    }
  }

  async function commit(at: Term, failures: number, probation: Probation, changes: Changes): Promise<void> {
    try {
      if (at.failures !== failures) throw new ReceiverError('store', 'The unit before this one did not commit');
      const { entries, notes, outgoing, offset } = changes;
      if (entries.length + notes.length + outgoing.length === 0 && offset === undefined) {
        if (at.lost) throw at.lost;
        return;
      }
      await flush(at, recordOf('unit', { probation: after(probation, changes), entries, notes }), changes);
    } catch (error) {
      at.failures++;
      // A turn of the event loop: whoever asked for the unit has been told then, and what is begun afterwards is not built on it.
      at.telling ??= sleep(clock, 0).then(() => {
        at.telling = undefined;
      });
      throw error;
    } finally {
      at.pending.splice(at.pending.indexOf(changes), 1);
    }
  }

  const unit: OwnedPartition['unit'] = async (work) => {
    const at = term;
    while (at.telling) await at.telling;
    const { failures } = at;
    const { done, result } = await at.working.run(async () => {
      // On probation nothing overlaps, so that it is known what a process died of.
      if (known.probation.limit > 0) await committing.idle();
      const { probation } = known;
      return probation.limit === 1 ? options.alone.run(() => run(at, failures, probation, work)) : run(at, failures, probation, work);
    });
    await done;
    return result;
  };

  /** `done` tells of the commit. The next unit's handlers may run meanwhile. */
  async function run<R>(
    at: Term,
    failures: number,
    probation: Probation,
    work: Parameters<typeof unit<R>>[0],
  ): Promise<{ done: Promise<void>; result: R }> {
    if (at.lost) throw at.lost;
    const { unit, close } = openUnit({
      limit: probation.limit || Number.POSITIVE_INFINITY,
      limits: options.limits,
      retentionMs: options.retentionMs,
      fence: Number(position ?? 0) + 1,
      find(key, entries, entry) {
        for (let i = at.pending.length - 1; i >= 0; i--) {
          const pending = at.pending[i]!.find(key);
          if (pending) return pending;
        }
        return known.find(key, entries, entry, clock.wall());
      },
      count: (note) => committing.run(() => flush(at, recordOf('unit', { probation, notes: [note] }))),
    });
    const result = await work(unit);
    const changes = close();
    at.pending.push(changes);
    const done = committing.run(() => commit(at, failures, probation, changes));
    done.catch(() => {});
    if (probation.limit === 1) await done;
    return { done, result };
  }

  return {
    unit,
    get revokedAt() {
      return revokedAt;
    },
    ids: known.ids,

    async replay(key) {
      const entries = entriesOf([{ key, fingerprint: '' }]);
      return committing.run(async () => {
        const at = term;
        const found = known.find(key, entries, 0, clock.wall());
        if (at.lost || found?.state !== 'parked') return false;
        await flush(at, recordOf('unit', { probation: known.probation, notes: [{ ...found.note, attempts: 0, parked: undefined }] }));
        return true;
      });
    },

    async assign() {
      term.lost ??= lose(term, 'it was assigned anew', undefined);
      revokedAt = undefined;
      const at = newTerm(undefined);
      coming = at;
      return committing.run(async () => {
        try {
          await topics.check(of.topic);
          await takeOver(at);
          const offset = await topics.committed(of);
          await begin(at);
          term = at;
          return { offset };
        } catch (error) {
          if (isFenced(error)) throw lose(at, 'somebody else took it over at the same time', error);
          throw error instanceof ReceiverError
            ? error
            : new ReceiverError('store', `Partition ${name} could not be taken over: ${describeError(error)}`, { cause: error });
        }
      });
    },

    async revoke() {
      term.lost ??= notAssigned();
      if (coming) coming.lost ??= notAssigned();
      revokedAt = clock.now();
      await committing.run(async () => {
        // So that the next owner knows that nothing has died here. If it has taken over already, it is not told.
        if (hasBegun) await write(recordOf('returned'), undefined, Math.min(farewellMs, options.flushTimeoutMs)).catch(() => {});
        hasBegun = false;
        await producers.disconnect();
      });
    },
  };
}
