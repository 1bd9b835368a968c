import type { Answer, Ask, DedupStore, End, Hold, Settled } from '../../../src/store.ts';
import type { Connection } from './connection.ts';
import { statements } from './database.ts';
import type { JournalUpkeep } from './journal.ts';
import { claimed, decide, decodeFingerprint, decodeKey, endRow, newRow, stateOf, touch } from './record.ts';
import type { Session } from './session.ts';

/** The leased way: each call is one transaction for its whole batch. */
export function leasedVerbs(connection: Connection, session: Session, journal: JournalUpkeep): Omit<DedupStore, 'purge'> {
  /** Applies `one` to each item in one transaction, in the order given. */
  function each<In, Out>(items: readonly In[], one: (item: In, now: number) => Out): Promise<readonly Out[]> {
    if (items.length === 0) return Promise.resolve([]);
    return connection.write(() =>
      statements('records were written', () => {
        session.load();
        const now = session.now();
        const result = items.map((item) => one(item, now));
        session.saveFence();
        return { result };
      }),
    );
  }

  function claimOne(ask: Ask, now: number): Answer {
    const key = decodeKey(ask.key);
    const fingerprint = decodeFingerprint(ask.fingerprint);
    const row = session.look(ask.key, key);
    if (row === 'expired') journal.drop(key);
    const decision = decide(row === 'expired' ? undefined : row, ask.token, fingerprint, now);
    if ('answer' in decision) return decision.answer;
    const claim = 'own' in decision ? decision.own : newRow(decision, ask.token, session.nextFence());
    session.put(key, touch(claim, now, ask.leaseMs, ask.retainMs));
    return { state: 'claimed', fence: claim.fence, attempt: claim.attempts, orphaned: claim.orphaned };
  }

  function settleOne(end: End, now: number): Settled {
    const key = decodeKey(end.key);
    const row = session.find(end.key, key);
    // An unreadable record is nobody's claim: `fenced` makes no promise, and the next claim tells what is wrong.
    if (!row || 'corrupt' in row || row.token !== end.token) return 'fenced';
    // The same ending again is a reply that was lost; another one comes too late for a claim that has ended.
    if (row.state !== claimed) return row.state === stateOf(end.as) ? 'ok' : 'fenced';
    session.put(key, touch(endRow(row, end), now, 0, end.retainMs));
    return 'ok';
  }

  function extendOne(hold: Hold, now: number): Settled {
    const key = decodeKey(hold.key);
    const row = session.find(hold.key, key);
    if (!row || 'corrupt' in row || row.token !== hold.token || row.state !== claimed) return 'fenced';
    session.put(key, touch(row, now, hold.leaseMs, row.expiresAt - row.writtenAt));
    return 'ok';
  }

  return {
    claim: (asks) => each(asks, claimOne),
    settle: (ends) => each(ends, settleOne),
    extend: (holds) => each(holds, extendOne),
  };
}
