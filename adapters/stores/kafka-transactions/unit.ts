import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, Cause, End, Key, Unit } from '../../../src/store.ts';
import { entryWords } from './ids.ts';
import type { Known } from './memory.ts';
import { type KafkaTx, type Outgoing, type OutgoingLimits, outgoingOf } from './outgoing.ts';
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
  /** Called before a message is taken alone: writes its attempt to the log. */
  count(note: Note): Promise<void>;
  readonly fence: number;
  readonly retentionMs: number;
  readonly limits: OutgoingLimits;
}

/** What a unit has recorded of an id. */
interface Own {
  readonly token: string;
  readonly entry: readonly number[];
  readonly attempt: number;
  state: 'completed' | 'released' | 'parked';
  /** That count, once the handler has ended. */
  attempts: number;
  parked?: { readonly reason: string; readonly detail: string } | undefined;
}

/** Gathers what a unit is to commit. Nothing is sent while handlers run. */
export function openUnit(options: UnitOptions): { unit: Unit<KafkaTx>; close(): Changes } {
  const own = new Map<Key, Own>();
  const outgoing: Outgoing[] = [];
  let offset: string | undefined;
  let taken = 0;
  let ended = false;
  let running = false;

  function check(): void {
    if (ended)
      throw new ReceiverError('store', 'Expected the unit to be open, but it has ended: a handler did not wait for all it started');
  }

  async function take(ask: Ask, entries: Int32Array, at: number, known: number, fingerprint: number): Promise<Answer> {
    if (taken >= options.limit) return { state: 'busy', remainingMs: 0 };
    taken++;
    const attempt = known + 1;
    if (options.limit === 1) await options.count({ key: ask.key, fingerprint, attempts: attempt });
    const entry = [...entries.subarray(at * entryWords, at * entryWords + 4), fingerprint];
    own.set(ask.key, { token: ask.token, entry, attempt, state: 'completed', attempts: attempt });
    return { state: 'claimed', fence: options.fence, attempt, orphaned: false };
  }

  async function recordOne(ask: Ask, entries: Int32Array, at: number): Promise<Answer> {
    const fingerprint = entries[at * entryWords + 4]!;
    const mine = own.get(ask.key);
    const known = mine ? knownOf(ask.key, mine) : options.find(ask.key, entries, at);
    if (!known) return take(ask, entries, at, 0, fingerprint);
    if (known.fingerprint !== 0 && fingerprint !== 0 && known.fingerprint !== fingerprint) return { state: 'mismatch' };
    if (mine?.state === 'completed') {
      // Its handler may still fail: busy to all but its own token.
      const { attempt } = mine;
      return mine.token === ask.token
        ? { state: 'claimed', fence: options.fence, attempt, orphaned: false }
        : { state: 'busy', remainingMs: 0 };
    }
    if (known.state === 'completed') return { state: 'completed', ageMs: known.ageMs };
    const { attempts, parked } = known.note;
    if (parked) return { state: 'parked', ...parked, attempts };
    return take(ask, entries, at, attempts, known.fingerprint || fingerprint);
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
      const tooLong = asks.find(({ retainMs }) => retainMs > options.retentionMs);
      if (tooLong) {
        throw new ReceiverError(
          'retention-too-short',
          `Expected the receiver's \`retentionMs\` to be at most that of the dedup log, ${options.retentionMs}, got ${tooLong.retainMs}`,
        );
      }
      const entries = entriesOf(asks);
      const answers: Answer[] = [];
      for (const [at, ask] of asks.entries()) answers.push(await recordOne(ask, entries, at));
      return answers;
    },

    async savepoint(run, cause) {
      check();
      if (running) throw new ReceiverError('store', 'Expected one savepoint after another, got two at once');
      running = true;
      const written = buffer(options.limits, cause);
      try {
        const result = await run(written.tx);
        outgoing.push(...written.outgoing);
        offset = written.offset ?? offset;
        return result;
      } finally {
        written.close();
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
    const completed: number[] = [];
    const notes: Note[] = [];
    for (const [key, mine] of own) {
      if (mine.state === 'completed') completed.push(...mine.entry);
      // One that is given back after its first try was not counted is as good as never seen.
      else if (mine.parked || mine.attempts > 0 || mine.attempt > 1) notes.push(noteOf(key, mine));
    }
    return {
      entries: Int32Array.from(completed),
      notes,
      outgoing,
      offset,
      find: (key) => {
        const mine = own.get(key);
        return mine && (mine.state !== 'completed' && !mine.parked && mine.attempts === 0 ? undefined : knownOf(key, mine));
      },
    };
  }

  return { unit, close };
}

function noteOf(key: Key, { entry, attempts, parked }: Own): Note {
  const note = { key, fingerprint: entry[4]!, attempts };
  return parked ? { ...note, parked } : note;
}

function knownOf(key: Key, mine: Own): Known {
  const fingerprint = mine.entry[4]!;
  if (mine.state === 'completed') return { state: 'completed', fingerprint, ageMs: 0 };
  return { state: mine.state, fingerprint, note: noteOf(key, mine) };
}

/** What one savepoint writes. It is dropped with a savepoint that fails. */
function buffer(limits: OutgoingLimits, cause: Cause | undefined) {
  const outgoing: Outgoing[] = [];
  let offset: string | undefined;
  let open = true;

  function check(): void {
    if (!open) throw new ReceiverError('store', 'Expected `ctx.tx` to be used while its handler runs, but it has ended');
  }

  const tx: KafkaTx & { commitOffset(next: string): void } = {
    publish(topic, message) {
      check();
      outgoing.push(outgoingOf(topic, message, outgoing.length, cause, limits));
    },
    commitOffset(next) {
      check();
      if (cause) throw new ReceiverError('store', 'Expected offsets to be committed by the source, not by a handler');
      if (!/^\d+$/.test(next)) throw new ReceiverError('store', `Expected the next offset to be a whole number as text, got ${next}`);
      offset = next;
    },
  };
  return {
    tx,
    outgoing,
    get offset() {
      return offset;
    },
    close: () => {
      open = false;
    },
  };
}
