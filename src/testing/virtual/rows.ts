import type { Answer, Ask, End, Hold, Key, Settled } from '../../store.ts';
import type { RowsView } from './database.ts';

/** A record. Never changed in place, so that whoever has read it can see that it is still the same. */
export interface Row {
  readonly key: Key;
  readonly fingerprint: string;
  readonly state: 'claimed' | 'released' | 'completed' | 'parked';
  readonly token: string;
  readonly fence: number;
  readonly attempts: number;
  readonly orphaned: boolean;
  readonly result: string | undefined;
  readonly reason: string;
  readonly detail: string;
  readonly claimedAt: number;
  readonly leaseUntil: number;
  readonly retainMs: number;
  readonly writtenAt: number;
  readonly expiresAt: number;
}

/** `claim` of the store contract, for one key. */
export function claimRow(rows: RowsView, ask: Ask): Answer {
  const row = rows.get(ask.key);
  const known = row && answerOf(rows, row, ask);
  if (known) return known;
  return claimed(put(rows, taken(rows, row, ask), ask.leaseMs));
}

/** `record` of a unit: the same, but what is taken is done at once, if the transaction commits. */
export function recordRow(rows: RowsView, own: Map<Key, Row>, ask: Ask): Answer {
  const row = rows.get(ask.key);
  const mine = own.get(ask.key);
  if (row && mine && isOther(row, ask)) return { state: 'mismatch' };
  if (row && mine && mine.token === ask.token) return claimed(mine);
  if (row && mine && row.state !== 'released' && row.state !== 'parked') return { state: 'busy', remainingMs: 0 };
  const held = row?.state === 'claimed' && row.token === ask.token && !isOther(row, ask);
  const known = held || !row ? undefined : answerOf(rows, row, ask);
  if (known) return known;
  const take = held ? row : taken(rows, row, ask);
  own.set(ask.key, take);
  put(rows, { ...take, state: 'completed', retainMs: ask.retainMs }, 0);
  return claimed(take);
}

export function settleRow(rows: RowsView, end: End): Settled {
  const row = rows.get(end.key);
  if (row?.token !== end.token) return 'fenced';
  if (row.state !== 'claimed') return row.state === end.as ? 'ok' : 'fenced';
  rows.put(endRow(row, end, rows.now));
  return 'ok';
}

/** A claimed row after its end. */
export function endRow(row: Row, end: End, now: number): Row {
  return {
    ...row,
    state: end.as,
    result: end.as === 'completed' ? end.result : undefined,
    attempts: row.attempts - (end.as === 'released' && !end.counted ? 1 : 0),
    reason: end.as === 'parked' ? end.reason : '',
    detail: end.as === 'parked' ? end.detail : '',
    leaseUntil: now,
    writtenAt: now,
    expiresAt: now + end.retainMs,
  };
}

export function extendRow(rows: RowsView, { key, token, leaseMs }: Hold): Settled {
  const row = rows.get(key);
  if (row?.state !== 'claimed' || row.token !== token) return 'fenced';
  put(rows, row, leaseMs);
  return 'ok';
}

/** What needs no claim: everything but a record that is free to be taken. */
function answerOf(rows: RowsView, row: Row, ask: Ask): Answer | undefined {
  if (isOther(row, ask)) return { state: 'mismatch' };
  if (row.state === 'completed') return { state: 'completed', result: row.result, ageMs: rows.now - row.writtenAt };
  if (row.state === 'parked') return { state: 'parked', reason: row.reason, detail: row.detail, attempts: row.attempts };
  if (row.state === 'claimed' && row.token === ask.token) return claimed(put(rows, row, ask.leaseMs));
  const remainingMs = row.leaseUntil - rows.now;
  return row.state === 'claimed' && remainingMs > 0 ? { state: 'busy', remainingMs } : undefined;
}

function taken(rows: RowsView, row: Row | undefined, ask: Ask): Row {
  return {
    key: ask.key,
    fingerprint: row?.fingerprint || ask.fingerprint,
    state: 'claimed',
    token: ask.token,
    fence: rows.nextFence(),
    attempts: (row?.attempts ?? 0) + 1,
    orphaned: row?.state === 'claimed',
    result: undefined,
    reason: '',
    detail: '',
    claimedAt: rows.now,
    leaseUntil: 0,
    retainMs: ask.retainMs,
    writtenAt: rows.now,
    expiresAt: 0,
  };
}

function put(rows: RowsView, row: Row, leaseMs: number): Row {
  const written = { ...row, writtenAt: rows.now, leaseUntil: rows.now + leaseMs, expiresAt: rows.now + Math.max(leaseMs, row.retainMs) };
  rows.put(written);
  return written;
}

function claimed({ fence, attempts, orphaned }: Row): Answer {
  return { state: 'claimed', fence, attempt: attempts, orphaned };
}

function isOther(row: Row, ask: Ask): boolean {
  return row.fingerprint !== '' && ask.fingerprint !== '' && row.fingerprint !== ask.fingerprint;
}
