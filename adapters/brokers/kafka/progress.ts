import type { World } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import type { Verdict } from '../../../src/message.ts';
import type { KafkaDelivery } from './delivery.ts';
import type { Mark, OffsetTracker } from './offsets.ts';
import { rangesOf, rangesText } from './offsets.ts';
import type { OffsetTransactionStore, OffsetTx, TopicPartition } from './transactions.ts';
import type { KafkaWatermark } from './watermark.ts';

/** How the progress of one partition is kept, from its assignment to its loss. */
export interface Progress {
  /** Nobody else can commit for the partition any more. Answers what is done; undefined if nothing is known. */
  assign(): Promise<Mark | undefined>;
  revoke(): Promise<void>;
  /** Inside a transaction, last before it commits. */
  readonly committing?: (tx: unknown, verdicts: ReadonlyMap<KafkaDelivery, Verdict>) => Promise<void>;
  settled?(delivery: KafkaDelivery, verdict: Verdict): void;
  /** Asks again what is done, after a refused commit. False if the partition is somebody else's. */
  reload?(): Promise<boolean>;
  /** Whether something was done outside of any transaction that `keep` would keep. */
  isBehind?(): boolean;
  /** Keeps it. Called only while no transaction of the partition is under way. */
  keep?(): Promise<void>;
  /** Whether the consumer's own offsets are to be committed too. */
  readonly consumerOffsets: boolean;
}

/** The committed offset of the group is all there is. Redeliveries are recognised by the store's records. */
export const groupOffsets: Progress = { assign: async () => undefined, revoke: async () => {}, consumerOffsets: true };

const lost = () => new ReceiverError('claim-lost', 'The partition is not assigned to this consumer any more');

/** Progress that a transaction has been given, until it is known whether that has committed. */
interface Tentative<Position> {
  readonly to: Position;
  readonly acked: ReadonlySet<number>;
}

function ackedOf(verdicts: ReadonlyMap<KafkaDelivery, Verdict>): Set<number> {
  const acked = new Set<number>();
  for (const [{ offset }, { action }] of verdicts) if (action === 'ack') acked.add(offset);
  return acked;
}

/** The consumed offsets commit in the transactions of the store, and nowhere else. */
export function transactionProgress(
  transactions: OffsetTransactionStore,
  at: TopicPartition,
  tracker: () => OffsetTracker,
  proven: () => Promise<boolean>,
): Progress {
  let owned = false;
  let written = -1;
  const tentative = new Set<Tentative<number>>();

  async function assign(): Promise<Mark | undefined> {
    const { offset } = await transactions.assign(at);
    owned = true;
    tentative.clear();
    written = offset === undefined ? -1 : Number(offset);
    if (offset !== undefined) return { next: written, done: [] };
    // A group without offsets that reads from the end would begin behind its first messages if it died before they are done.
    await keep();
    return undefined;
  }

  async function keep(): Promise<void> {
    const { next } = tracker();
    await transactions.unit((unit) => unit.savepoint(async (tx) => tx.commitOffset(String(next))), `${at.topic}/${at.partition}`);
    written = next;
  }

  return {
    consumerOffsets: false,
    assign,
    async revoke() {
      owned = false;
      await transactions.revoke(at);
    },
    async committing(tx, verdicts) {
      if (!owned) throw lost();
      const acked = ackedOf(verdicts);
      // Units of a partition commit in their order, and none does if one before it has not.
      const all = new Set(acked);
      for (const earlier of tentative) for (const offset of earlier.acked) all.add(offset);
      const to = tracker().nextWith(all);
      if (to <= written) return;
      (tx as OffsetTx).commitOffset(String(to));
      if (acked.size > 0) tentative.add({ to, acked });
    },
    settled({ offset }, { action }) {
      for (const each of tentative) {
        if (!each.acked.has(offset)) continue;
        tentative.delete(each);
        if (action === 'ack') written = Math.max(written, each.to);
      }
    },
    async reload() {
      // Whoever takes over again without a proof might take the partition from its rightful owner.
      if (!(await proven())) return false;
      const known = await assign();
      if (known) tracker().learn(known);
      return true;
    },
    isBehind: () => owned && tracker().next > written,
    keep,
  };
}

/** A row for the partition is written in the transaction of the effects, and only its owner can write it. */
export function watermarkProgress(
  watermark: KafkaWatermark,
  name: string,
  partition: string,
  tracker: () => OffsetTracker,
  world: World,
): Progress {
  const { rows, exact } = watermark;
  const owner = world.random.token();
  let owned = false;
  /** What is in the row. */
  let written: Mark | undefined;
  let tentative: Tentative<Mark> | undefined;

  const inUnit = <R>(work: (tx: unknown) => Promise<R>): Promise<R> => watermark.store.unit((unit) => unit.savepoint(work), partition);

  async function advance(tx: unknown, acked: ReadonlySet<number>): Promise<Mark> {
    const to = exact ? tracker().markWith(acked) : { next: tracker().nextWith(acked), done: [] };
    const from = exact ? (written ? rowOf(written) : null) : undefined;
    if (await rows.advance(tx, name, owner, rowOf(to), from)) return to;
    throw lost();
  }

  return {
    consumerOffsets: true,
    async assign() {
      const row = await inUnit((tx) => rows.take(tx, name, owner));
      owned = true;
      tentative = undefined;
      written = row && markOf(row);
      return written;
    },
    async revoke() {
      owned = false;
    },
    async committing(tx, verdicts) {
      if (!owned) throw lost();
      const acked = ackedOf(verdicts);
      watermark.advancing(tx);
      // With nothing acked there is nobody to tell whether it has committed, so the row stays as it is.
      if (exact && acked.size === 0) {
        if ((await rows.read(tx, name, owner)) === 'lost') throw lost();
        return;
      }
      const to = await advance(tx, acked);
      tentative = { to, acked };
    },
    settled({ offset }, { action }) {
      if (!tentative?.acked.has(offset)) return;
      if (action === 'ack') written = tentative.to;
      tentative = undefined;
    },
    async reload() {
      const row = await inUnit((tx) => rows.read(tx, name, owner));
      if (row === 'lost') return false;
      // A transaction that seemed to have failed had committed.
      written = row && markOf(row);
      if (written) tracker().learn(written);
      return true;
    },
    isBehind: () => owned && (!written || tracker().next > written.next),
    async keep() {
      const none: ReadonlySet<number> = new Set();
      written = await inUnit((tx) => advance(tx, none));
    },
  };
}

function rowOf({ next, done }: Mark): { next: number; done: string } {
  return { next, done: rangesText(done) };
}

function markOf({ next, done }: { next: number; done: string }): Mark {
  return { next, done: rangesOf(done) };
}
