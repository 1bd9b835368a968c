import { sleep, type World } from '../../../src/clock.ts';
import { digest } from '../../../src/digest.ts';
import { describeError, isClaimLost, ReceiverError } from '../../../src/errors.ts';
import type { Key, TransactionalStore } from '../../../src/store.ts';
import { isFenced, type TopicPartition } from './client.ts';
import { line } from './line.ts';
import { memory } from './memory.ts';
import type { KafkaTx, OutgoingLimits } from './outgoing.ts';
import { after, free, type Probation } from './probation.ts';
import type { Producers } from './producers.ts';
import type { LogReader } from './reader.ts';
import { decodeRecord, entriesOf, type Kind, type LogRecord } from './record.ts';
import { type Serial, serial } from './serial.ts';
import type { Topics } from './topics.ts';
import { type Changes, openUnit } from './unit.ts';
import { now, type Place, writer } from './writer.ts';

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
  const log = writer({ ...options, dedupLog: options.limits.dedupLog, clock });
  const name = `${of.topic}/${of.partition}`;
  const known = memory({ retentionMs: options.retentionMs });
  const transactions = line();
  /** Up to here the log is in memory. */
  let position: string | undefined;
  let term = newTerm(notAssigned());
  /** New producers are being made: nothing else is begun, which the log could not be read past. */
  let takingOver: Promise<unknown> = Promise.resolve();
  /** What is being assigned. */
  let coming: Term | undefined;
  let revokedAt: number | undefined;

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

  /** Runs when all transactions that were begun before have ended, and before any other begins. */
  function alone<R>(task: () => Promise<R>): Promise<R> {
    return transactions.run(async (turn) => {
      await turn;
      return task();
    });
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
  function takeOver(at: Term, kind: 'assigned' | 'mark', wanted?: Buffer): Promise<Found> {
    const taking = fenceAndRead(at, kind, wanted);
    takingOver = taking.catch(() => {});
    return taking;
  }

  async function fenceAndRead(at: Term, kind: 'assigned' | 'mark', wanted: Buffer | undefined): Promise<Found> {
    const giveUpAt = clock.now() + options.takeOverTimeoutMs;
    let next = kind;
    // What was read before a try broke off is not read again.
    const found: Found = { wanted: false, assigned: false };
    for (let waitMs = 50; ; waitMs = Math.min(waitMs * 2, 1_000)) {
      try {
        await log.fence(Math.max(1, giveUpAt - clock.now()));
        const mark = recordOf(next);
        await log.write(mark);
        // Nobody has died if the rest has to be tried again.
        next = 'mark';
        await catchUp(mark.id, wanted, found);
        return found;
      } catch (error) {
        // Given back meanwhile.
        if (at.lost) throw at.lost;
        if (isFenced(error) || (error instanceof ReceiverError && error.code === 'broker') || clock.now() + waitMs >= giveUpAt) throw error;
        await sleep(clock, waitMs);
      }
    }
  }

  /** @throws if what was begun after so many failures must not commit */
  function expectSound(at: Term, failures: number): void {
    if (at.lost) throw at.lost;
    if (at.failures !== failures) throw new ReceiverError('store', 'The unit before this one did not commit');
  }

  /** Brings the changes of a unit into the log. Resolves only if they have committed, and only in its turn. */
  async function flush(at: Term, failures: number, record: LogRecord, changes?: Changes, place = now): Promise<void> {
    const check = () => expectSound(at, failures);
    for (let committed = false; !committed; ) {
      await takingOver;
      check();
      const { present } = log;
      try {
        position = (await log.write(record, { changes, place, check })) ?? position;
        committed = true;
      } catch (cause) {
        await place.turn;
        // Also if it was given back meanwhile: whoever has it now would be fenced.
        check();
        // The one before has been settled, by new producers, and has committed: this one is sent anew.
        if (present.aborted) continue;
        if (isFenced(cause)) throw lose(at, 'its producers are fenced, or their transaction took too long', cause);
        committed = await settled(at, record.id, cause);
        if (!committed) throw new ReceiverError('store', `The transaction did not commit: ${describeError(cause)}`, { cause });
      }
    }
    known.apply(record, clock.wall());
  }

  /** Whether a unit has committed that was left in doubt. */
  async function settled(at: Term, id: Buffer, cause: unknown): Promise<boolean> {
    try {
      const found = await takeOver(at, 'mark', id);
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

  async function commit(at: Term, failures: number, probation: Probation, changes: Changes, place: Place): Promise<void> {
    try {
      const { entries, notes, outgoing, offset } = changes;
      if (entries.length + notes.length + outgoing.length === 0 && offset === undefined) {
        place.passed();
        await place.turn;
        return expectSound(at, failures);
      }
      await flush(at, failures, recordOf('unit', { probation: after(probation, changes), entries, notes }), changes, place);
    } catch (error) {
      at.failures++;
      // When all that is built on it has failed too, a turn of the event loop: whoever asked for the unit has been told then, and what is begun
      // afterwards is not built on it.
      at.telling ??= transactions
        .idle()
        .then(() => sleep(clock, 0))
        .then(() => {
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
      if (known.probation.limit > 0) await transactions.idle();
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
      count: (note) => alone(() => flush(at, failures, recordOf('unit', { probation, notes: [note] }))),
    });
    const result = await work(unit);
    const changes = close();
    at.pending.push(changes);
    const done = transactions.run((turn, passed) => commit(at, failures, probation, changes, { turn, passed }));
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
      return alone(async () => {
        const at = term;
        const found = known.find(key, entries, 0, clock.wall());
        if (at.lost || found?.state !== 'parked') return false;
        const note = { ...found.note, attempts: 0, parked: undefined };
        await flush(at, at.failures, recordOf('unit', { probation: known.probation, notes: [note] }));
        return true;
      });
    },

    async assign() {
      term.lost ??= lose(term, 'it was assigned anew', undefined);
      revokedAt = undefined;
      const at = newTerm(undefined);
      coming = at;
      return alone(async () => {
        try {
          await topics.check(of.topic);
          await takeOver(at, 'assigned');
          const offset = await topics.committed(of);
          if (at.lost) throw at.lost;
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
      const wasOwned = term.lost === undefined;
      term.lost ??= notAssigned();
      if (coming) coming.lost ??= notAssigned();
      revokedAt = clock.now();
      await alone(async () => {
        // So that the next owner knows that nothing has died here. If it has taken over already, it is not told.
        if (wasOwned) await log.write(recordOf('returned'), { limitMs: Math.min(farewellMs, options.flushTimeoutMs) }).catch(() => {});
        await producers.disconnect();
      });
    },
  };
}
