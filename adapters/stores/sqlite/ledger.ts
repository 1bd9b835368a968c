import type { Answer, Ask, End, Key, Settled } from '../../../src/store.ts';
import type { Work } from './connection.ts';
import type { JournalUpkeep } from './journal.ts';
import { writeEntries } from './recent.ts';
import { completed, decide, decodeFingerprint, decodeKeys, differ, endRow, keyBytes, newRow, type Row, touch } from './record.ts';
import type { Session } from './session.ts';

/**
 * What one unit has recorded. The unit holds the write lock from its first to its last moment, so what `record` finds stays true, and
 * everything is written once, at the end, when it is known what has become of each message.
 */
export interface Ledger {
  record(asks: readonly Ask[]): Answer[];
  settle(end: End): Settled;
  /** Writes what has become of each message. */
  write(): Pick<Work<unknown>, 'committed' | 'afterCommit'>;
}

export function openLedger(session: Session, journal: JournalUpkeep): Ledger {
  const own = new Map<Key, Own>();

  function recordNew(ask: Ask, bytes: Buffer, now: number): Answer {
    const row = session.look(ask.key, bytes);
    if (!row) {
      // The common way, so it makes as little as possible.
      const fence = session.nextFence();
      own.set(ask.key, { ask, bytes, fence, claim: undefined, end: undefined });
      return { state: 'claimed', fence, attempt: 1, orphaned: false };
    }
    if (row === 'expired') journal.drop(bytes);
    return take(ask, bytes, row === 'expired' ? undefined : row, now);
  }

  function take(ask: Ask, bytes: Buffer, row: ReturnType<Session['find']>, now: number): Answer {
    const decision = decide(row, ask.token, decodeFingerprint(ask.fingerprint), now);
    if ('answer' in decision) return decision.answer;
    const claim = 'own' in decision ? decision.own : newRow(decision, ask.token, session.nextFence());
    own.set(ask.key, { ask, bytes, fence: claim.fence, claim, end: undefined });
    return answerOf(claim);
  }

  /** The answer of a key that this unit has recorded before. */
  function recordAgain(mine: Own, ask: Ask, now: number): Answer {
    const row = endedRow(mine);
    if (differ(row.fingerprint, decodeFingerprint(ask.fingerprint))) return { state: 'mismatch' };
    if (row.state !== completed) return take(ask, mine.bytes, row, now);
    // Completed so far, but its handler may still fail: busy to all but its own token.
    return mine.ask.token === ask.token ? answerOf(row) : { state: 'busy', remainingMs: 0 };
  }

  return {
    record(asks) {
      const now = session.now();
      const bytes = decodeKeys(asks.map((ask) => ask.key));
      return asks.map((ask, index) => {
        const mine = own.get(ask.key);
        return mine ? recordAgain(mine, ask, now) : recordNew(ask, bytes.subarray(index * keyBytes, (index + 1) * keyBytes), now);
      });
    },

    settle(end) {
      const mine = own.get(end.key);
      if (mine?.ask.token !== end.token) return 'fenced';
      mine.end = end;
      return 'ok';
    },

    write() {
      const now = session.now();
      const plain = new Map<number, Own[]>();
      for (const mine of own.values()) {
        const retainMs = mine.end?.retainMs ?? mine.ask.retainMs;
        if (!isPlain(mine)) {
          session.put(mine.bytes, touch(endedRow(mine), now, 0, retainMs));
          continue;
        }
        const list = plain.get(retainMs);
        if (list) list.push(mine);
        else plain.set(retainMs, [mine]);
      }
      const appended = [...plain].map(([retainMs, list]) => {
        const keys = list.map(({ ask }) => ask.key);
        const batch = { id: session.nextFence(), writtenAt: now, expiresAt: now + Math.ceil(retainMs), entries: writeEntries(list) };
        session.appendRecent(batch);
        return { batch, keys };
      });
      session.saveFence();
      const [probe] = own.values();
      return {
        committed: () => {
          if (!probe) return undefined;
          session.load();
          const row = session.find(probe.ask.key, probe.bytes);
          return row !== undefined && !('corrupt' in row) && row.fence === probe.fence && row.state === endedRow(probe).state;
        },
        afterCommit: () => {
          for (const { batch, keys } of appended) session.committedRecent(batch, keys);
        },
      };
    },
  };
}

/** A key that a unit has recorded. */
export interface Own {
  readonly ask: Ask;
  readonly bytes: Buffer;
  readonly fence: number;
  /** The row as it was taken; undefined for a key of which the file knows nothing. */
  readonly claim: Row | undefined;
  /** How it was settled, if it was; completed without a result if it was not. */
  end: End | undefined;
}

/** Nothing more to remember of it than that it is completed: a place among the recent keys is enough. */
function isPlain({ claim, end }: Own): boolean {
  return claim === undefined && (end === undefined || (end.as === 'completed' && end.result === undefined));
}

/** The row as it is to be written. */
function endedRow({ ask, fence, claim, end }: Own): Row {
  const taken = claim ?? newRow({ attempts: 1, orphaned: false, fingerprint: decodeFingerprint(ask.fingerprint) }, ask.token, fence);
  return endRow(taken, end ?? { key: ask.key, token: ask.token, retainMs: ask.retainMs, as: 'completed' });
}

function answerOf(row: Row): Answer {
  return { state: 'claimed', fence: row.fence, attempt: row.attempts, orphaned: row.orphaned };
}
