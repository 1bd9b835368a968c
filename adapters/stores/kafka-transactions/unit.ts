import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, Cause, End, Key, Unit } from '../../../src/store.ts';
import { entryWords } from './ids.ts';
import type { Known } from './memory.ts';
import { type KafkaTx, type Outgoing, type OutgoingLimits, outgoingOf, type Publication } from './outgoing.ts';
import { entriesOf, type Note } from './record.ts';

/** What a unit is to commit. */
export interface Changes {
  /** Completed ids, `entryWords` each. */
  readonly entries: Int32Array;
  readonly notes: readonly Note[];
  readonly outgoing: readonly Outgoing[];
  /** The next offset to read, if it is to be committed. */
  readonly offset: string | undefined;
  /** What an id has become. For the units that begin before this one has committed. */
  find(key: Key): Known | undefined;
}

export interface UnitOptions {
  /** What the log says of an id, and what the units before this one are about to commit. */
  find(key: Key, entries: Int32Array, entry: number): Known | undefined;
  /** How many new ids the unit may take; the others are answered `busy`. */
  readonly limit: number;
  /** Writes the attempt of a message that is taken alone to the log, before its handler runs. */
  count(note: Note): Promise<void>;
  readonly fence: number;
  readonly retentionMs: number;
  readonly limits: OutgoingLimits;
}

/** What a unit has recorded of an id. */
interface Own {
  readonly token: string;
  /** Its entry, among those of the asks that it came with. */
  readonly entries: Int32Array;
  readonly at: number;
  readonly attempt: number;
  state: 'completed' | 'released' | 'parked';
  /** That count, once the handler has ended. */
  attempts: number;
  parked: Note['parked'];
}

/** Handlers that wait for nothing would keep the process from hearing what the broker answers to the commit of the unit before: not for more than so many. */
const atATime = 50;

/** Gathers what a unit is to commit. Nothing is sent while handlers run. */
export function openUnit(options: UnitOptions): { unit: Unit<KafkaTx>; close(): Changes } {
  const { limit, fence, limits, retentionMs } = options;
  const own = new Map<Key, Own>();
  const outgoing: Outgoing[] = [];
  let offset: string | undefined;
  let taken = 0;
  let ended = false;
  let running = false;
  let savepoints = 0;

  function check(): void {
    if (ended)
      throw new ReceiverError('store', 'Expected the unit to be open, but it has ended: a handler did not wait for all it started');
  }

  function take({ key, token }: Ask, entries: Int32Array, at: number, attempts: number): Answer {
    if (taken >= limit) return { state: 'busy', remainingMs: 0 };
    taken++;
    const attempt = attempts + 1;
    own.set(key, { token, entries, at, attempt, state: 'completed', attempts: attempt, parked: undefined });
    return { state: 'claimed', fence, attempt, orphaned: false };
  }

  function recordOne(ask: Ask, entries: Int32Array, at: number): Answer {
    const mine = own.get(ask.key);
    const known = mine ? knownOf(ask.key, mine) : options.find(ask.key, entries, at);
    if (!known) return take(ask, entries, at, 0);
    const fingerprint = entries[at * entryWords + 4]!;
    if (known.fingerprint !== 0 && fingerprint !== 0 && known.fingerprint !== fingerprint) return { state: 'mismatch' };
    if (mine?.state === 'completed') {
      // Its handler may still fail: busy to all but its own token.
      if (mine.token !== ask.token) return { state: 'busy', remainingMs: 0 };
      return { state: 'claimed', fence, attempt: mine.attempt, orphaned: false };
    }
    if (known.state === 'completed') return { state: 'completed', ageMs: known.ageMs };
    const { attempts, parked } = known.note;
    return parked ? { state: 'parked', ...parked, attempts } : take(ask, entries, at, attempts);
  }

  function settleOne(end: End): 'ok' | 'fenced' {
    const mine = own.get(end.key);
    if (mine?.token !== end.token) return 'fenced';
    if (end.as === 'completed' && end.result !== undefined)
      throw new ReceiverError('store', 'Expected no result, because a dedup log keeps none: leave `results` off, or use another store');
    mine.state = end.as;
    mine.attempts = end.as === 'released' && !end.counted ? mine.attempt - 1 : mine.attempt;
    mine.parked = end.as === 'parked' ? { reason: end.reason, detail: end.detail } : undefined;
    return 'ok';
  }

  const unit: Unit<KafkaTx> = {
    async record(asks) {
      check();
      const tooLong = asks.find(({ retainMs }) => retainMs > retentionMs);
      if (tooLong) {
        throw new ReceiverError(
          'retention-too-short',
          `Expected the receiver's \`retentionMs\` to be at most that of the dedup log, ${retentionMs}, got ${tooLong.retainMs}`,
        );
      }
      const entries = entriesOf(asks);
      const before = own.size;
      const answers = asks.map((ask, at) => recordOne(ask, entries, at));
      if (limit === 1 && own.size > before) {
        const [key, mine] = [...own].at(-1)!;
        await options.count(noteOf(key, mine));
      }
      return answers;
    },

    async savepoint(run, cause) {
      check();
      if (running) throw new ReceiverError('store', 'Expected one savepoint after another, got two at once');
      running = true;
      if (++savepoints % atATime === 0) await new Promise((resolve) => setImmediate(resolve));
      const written = new Savepoint(limits, cause);
      try {
        const result = await run(written);
        for (const each of written.outgoing) outgoing.push(each);
        offset = written.offset ?? offset;
        return result;
      } finally {
        written.open = false;
        running = false;
      }
    },

    async settle(ends) {
      check();
      return ends.map(settleOne);
    },
  };

  function close(): Changes {
    check();
    ended = true;
    const entries = new Int32Array(own.size * entryWords);
    const notes: Note[] = [];
    let completed = 0;
    for (const [key, mine] of own) {
      const from = mine.at * entryWords;
      if (mine.state === 'completed') entries.set(mine.entries.subarray(from, from + entryWords), entryWords * completed++);
      // One that is given back after its first try was not counted is as good as never seen.
      else if (mine.parked || mine.attempt > 1 || mine.attempts > 0) notes.push(noteOf(key, mine));
    }
    const find = (key: Key) => {
      const mine = own.get(key);
      return mine && knownOf(key, mine);
    };
    return { entries: entries.subarray(0, completed * entryWords), notes, outgoing, offset, find };
  }

  return { unit, close };
}

function noteOf(key: Key, { entries, at, attempts, parked }: Own): Note {
  return { key, fingerprint: entries[at * entryWords + 4]!, attempts, parked };
}

function knownOf(key: Key, mine: Own): Known {
  const note = noteOf(key, mine);
  const { fingerprint } = note;
  return mine.state === 'completed' ? { state: 'completed', fingerprint, ageMs: 0 } : { state: mine.state, fingerprint, note };
}

/** What one handler, or the source, writes. It is dropped if that fails. */
class Savepoint implements KafkaTx {
  readonly outgoing: Outgoing[] = [];
  offset: string | undefined;
  open = true;
  readonly #limits: OutgoingLimits;
  readonly #cause: Cause | undefined;

  constructor(limits: OutgoingLimits, cause: Cause | undefined) {
    this.#limits = limits;
    this.#cause = cause;
  }

  publish(topic: string, message: Publication): void {
    this.#check();
    this.outgoing.push(outgoingOf(topic, message, this.outgoing.length, this.#cause, this.#limits));
  }

  /** For the source that the messages come from. */
  commitOffset(next: string): void {
    this.#check();
    if (this.#cause) throw new ReceiverError('store', 'Expected offsets to be committed by the source, not by a handler');
    if (!/^\d+$/.test(next)) throw new ReceiverError('store', `Expected the next offset to be a whole number as text, got ${next}`);
    this.offset = next;
  }

  #check(): void {
    if (!this.open) throw new ReceiverError('store', 'Expected `ctx.tx` to be used while its handler runs, but it has ended');
  }
}
