import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, End, Fingerprint, Key, RecordView } from '../../../src/store.ts';

/** A record as the file holds it. Times are milliseconds since the Unix epoch. */
export interface Row {
  state: State;
  /** 16 bytes, or none. */
  fingerprint: Uint8Array;
  /** Of the owner, or of the last one when the claim has ended: re-sent endings are known by it. */
  token: string;
  fence: number;
  attempts: number;
  orphaned: boolean;
  leaseUntil: number;
  writtenAt: number;
  expiresAt: number;
  result: string | null;
  reason: string | null;
  detail: string | null;
  label: string | null;
}

/** Something is stored under a key that is not a record as this build writes them. */
export interface Corrupt {
  readonly corrupt: string;
}

export type State = 1 | 2 | 3 | 4;
export const claimed = 1;
export const released = 2;
export const completed = 3;
export const parked = 4;

const stateNames: readonly RecordView['state'][] = ['claimed', 'released', 'completed', 'parked'];
export const nameOf = (state: State): RecordView['state'] => stateNames[state - 1]!;
export const stateOf = (name: RecordView['state']): State => (stateNames.indexOf(name) + 1) as State;

export const keyBytes = 24;

/** The bytes of a key. @throws ReceiverError `invalid-key` if it is not 32 characters of base64url */
export function decodeKey(key: Key): Buffer {
  return decodeKeys([key]);
}

/** The bytes of several keys, one after another: much cheaper than one by one. */
export function decodeKeys(keys: readonly Key[]): Buffer {
  const text = keys.join('');
  const bytes = Buffer.from(text, 'base64url');
  // Node also takes the letters of base64, + and /: two names for the same bytes.
  if (bytes.length !== keys.length * keyBytes || keys.some((key) => key.length !== 32) || /[+/]/.test(text)) {
    throw new ReceiverError('invalid-key', 'Expected every key to be 32 characters of base64url');
  }
  return bytes;
}

export const encodeKey = (bytes: Uint8Array): Key => view(bytes).toString('base64url');

const noBytes = new Uint8Array(0);

/** @throws ReceiverError `invalid-key` if it is neither empty nor 22 characters of base64url */
export function decodeFingerprint(fingerprint: Fingerprint): Uint8Array {
  if (fingerprint === '') return noBytes;
  const bytes = Buffer.from(fingerprint, 'base64url');
  if (fingerprint.length !== 22 || bytes.length !== 16) {
    throw new ReceiverError('invalid-key', 'Expected every fingerprint to be empty or 22 characters of base64url');
  }
  return bytes;
}

/** Checks what was read: a record that can't be understood must not be taken for absent, nor for anything else. */
export function readRow(raw: RawRow): Row | Corrupt {
  const { state, fingerprint, token, fence, attempts } = raw;
  if (!(state >= 1 && state <= 4)) return { corrupt: `Expected a state from 1 to 4, got ${state}` };
  if (fingerprint.length !== 0 && fingerprint.length !== 16)
    return { corrupt: `Expected 0 or 16 bytes of fingerprint, got ${fingerprint.length}` };
  if (!(fence > 0 && attempts >= 0)) return { corrupt: `Expected fence and attempts not to be negative, got ${fence} and ${attempts}` };
  if (!(raw.expires_at >= raw.lease_until && raw.expires_at >= raw.written_at))
    return { corrupt: 'Expected the record to outlive its lease' };
  if (state === parked && (raw.reason === null || raw.detail === null)) return { corrupt: 'Expected a reason for being parked, got none' };
  return {
    state: state as State,
    // An empty blob that was read becomes NULL when node:sqlite of Node 22 binds it again.
    fingerprint: fingerprint.length === 0 ? noBytes : fingerprint,
    token,
    fence,
    attempts,
    orphaned: raw.orphaned !== 0,
    leaseUntil: raw.lease_until,
    writtenAt: raw.written_at,
    expiresAt: raw.expires_at,
    result: textOf(raw.result),
    reason: textOf(raw.reason),
    detail: textOf(raw.detail),
    label: textOf(raw.label),
  };
}

function textOf(bytes: Uint8Array | null): string | null {
  return bytes && view(bytes).toString();
}

export interface RawRow {
  readonly key?: Uint8Array;
  readonly state: number;
  readonly fingerprint: Uint8Array;
  readonly token: string;
  readonly fence: number;
  readonly attempts: number;
  readonly orphaned: number;
  readonly lease_until: number;
  readonly written_at: number;
  readonly expires_at: number;
  readonly result: Uint8Array | null;
  readonly reason: Uint8Array | null;
  readonly detail: Uint8Array | null;
  readonly label: Uint8Array | null;
}

/**
 * What a record says to somebody who asks for its key: an answer; or `own`, because the asker's token holds it; or that it may be taken,
 * as which attempt.
 */
export type Decision =
  | { readonly answer: Answer }
  | { readonly own: Row }
  | { readonly attempts: number; readonly orphaned: boolean; readonly fingerprint: Uint8Array };

export function decide(row: Row | Corrupt | undefined, token: string, fingerprint: Uint8Array, now: number): Decision {
  if (!row) return { attempts: 1, orphaned: false, fingerprint };
  if ('corrupt' in row) return { answer: { state: 'corrupt', detail: row.corrupt } };
  if (differ(row.fingerprint, fingerprint)) return { answer: { state: 'mismatch' } };
  const known = row.fingerprint.length > 0 ? row.fingerprint : fingerprint;
  switch (row.state) {
    case completed:
      return { answer: { state: 'completed', result: row.result ?? undefined, ageMs: Math.max(0, now - row.writtenAt) } };
    case parked:
      return { answer: { state: 'parked', reason: row.reason ?? '', detail: row.detail ?? '', attempts: row.attempts } };
    case released:
      return { attempts: row.attempts + 1, orphaned: false, fingerprint: known };
    case claimed: {
      if (row.token === token) return { own: row };
      const remainingMs = row.leaseUntil - now;
      if (remainingMs > 0) return { answer: { state: 'busy', remainingMs } };
      return { attempts: row.attempts + 1, orphaned: true, fingerprint: known };
    }
  }
}

/** Fingerprints are compared only where both are known. */
export function differ(a: Uint8Array, b: Uint8Array): boolean {
  return a.length > 0 && b.length > 0 && Buffer.compare(a, b) !== 0;
}

export function view(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function newRow(claim: { attempts: number; orphaned: boolean; fingerprint: Uint8Array }, token: string, fence: number): Row {
  return { ...blank, ...claim, token, fence };
}

/** What an ending makes of a record. */
export function endRow(row: Row, end: End): Row {
  switch (end.as) {
    case 'completed':
      return { ...row, state: completed, result: end.result ?? null };
    case 'released':
      return { ...row, state: released, attempts: end.counted ? row.attempts : row.attempts - 1 };
    case 'parked':
      return { ...row, state: parked, reason: end.reason, detail: end.detail, label: end.label };
  }
}

/** Every write ends here: the record is kept for `retainMs` from now, and never less than its lease. */
export function touch(row: Row, now: number, leaseMs: number, retainMs: number): Row {
  const leaseUntil = now + Math.ceil(leaseMs);
  return { ...row, writtenAt: now, leaseUntil, expiresAt: now + Math.ceil(Math.max(leaseMs, retainMs)) };
}

/** A record of which nothing is known yet. */
export const blank: Row = {
  state: claimed,
  fingerprint: noBytes,
  token: '',
  fence: 0,
  attempts: 0,
  orphaned: false,
  leaseUntil: 0,
  writtenAt: 0,
  expiresAt: 0,
  result: null,
  reason: null,
  detail: null,
  label: null,
};
