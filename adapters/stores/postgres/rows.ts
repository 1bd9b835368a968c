import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, Fingerprint, Key, RecordView } from '../../../src/store.ts';
import { hexList, hexOf, hexOfText, numberList } from './lists.ts';
import { bucketOf, type Names } from './names.ts';

export const claimed = 1;
export const released = 2;
export const completed = 3;
export const parked = 4;
export type State = typeof claimed | typeof released | typeof completed | typeof parked;

export const stateNames: Readonly<Record<State, RecordView['state']>> = { 1: 'claimed', 2: 'released', 3: 'completed', 4: 'parked' };
export const stateOf = (name: RecordView['state']): State =>
  name === 'claimed' ? claimed : name === 'released' ? released : name === 'completed' ? completed : parked;

const keyBytes = 24;
const keyForm = /^[A-Za-z0-9_-]{32}$/;
const fingerprintForm = /^(?:[A-Za-z0-9_-]{22})?$/;

export function keyToBytes(key: Key): Buffer {
  if (!keyForm.test(key)) throw new ReceiverError('store', `Expected a key of 32 characters of base64url, got ${JSON.stringify(key)}`);
  return Buffer.from(key, 'base64url');
}

export const keyOfBytes = (bytes: Buffer): Key => bytes.toString('base64url');

function fingerprintToBytes(fingerprint: Fingerprint): Buffer {
  if (!fingerprintForm.test(fingerprint))
    throw new ReceiverError('store', `Expected a fingerprint of 22 characters of base64url or none, got ${JSON.stringify(fingerprint)}`);
  return Buffer.from(fingerprint, 'base64url');
}

/** The parameters of a claim, column by column. */
export function columnsOf(asks: readonly Ask[]): string[] {
  return [
    hexList(asks, ({ key }) => hexOf(keyToBytes(key))),
    hexList(asks, ({ fingerprint }) => hexOf(fingerprintToBytes(fingerprint))),
    hexList(asks, ({ token }) => hexOfText(token)),
    numberList(asks, ({ leaseMs }) => leaseMs),
    numberList(asks, ({ retainMs }) => retainMs),
  ];
}

/** Asks the function that takes keys. `parameters` are those of `columnsOf`, and how long it waits for a key. */
export const takeSql = ({ schema }: Names, state: typeof claimed | typeof completed, parameters: string): string =>
  `select t.* from ${schema}.take(${state}::smallint, ${parameters}) with ordinality as t order by t.ordinality`;

/** When the lease of a new record ends, and when it expires. */
export const newTimes = (leaseMs: string): string =>
  `${now} + ${leaseMs} * interval '1 ms' as new_lease, ${now} + greatest(${leaseMs}, retain_ms) * interval '1 ms' as new_expiry`;

export const newColumns = 'fingerprint, state, token, fence, attempts, orphaned, lease_until, written_at, expires_at, expires_minute';
export const newValues = (fenceLiteral: string, state: string): string =>
  `asked_fingerprint, ${state}, asked_token, nextval(${fenceLiteral}), 1, false, new_lease, ${now}, new_expiry, ${bucketOf('new_expiry')}`;

/** What becomes of the row `r` that another one takes. `by` gives the columns of a new record of that one. */
export function takenOver(fenceLiteral: string, by: (column: string) => string): string {
  /** The row is this very claim: it was asked before, and the answer got lost. */
  const own = `r.state = ${claimed} and r.token = ${by('token')} and r.expires_at > ${now}`;
  return `
    fingerprint = case when r.expires_at <= ${now} or (r.fingerprint = '' and not (${own})) then ${by('fingerprint')} else r.fingerprint end,
    state = ${by('state')},
    token = ${by('token')},
    fence = case when ${own} then r.fence else nextval(${fenceLiteral}) end,
    attempts = case when r.expires_at <= ${now} then 1 when ${own} then r.attempts else r.attempts + 1 end,
    orphaned = case when r.expires_at <= ${now} then false when ${own} then r.orphaned else r.state = ${claimed} end,
    lease_until = ${by('lease_until')}, written_at = ${by('written_at')}, expires_at = ${by('expires_at')},
    expires_minute = ${by('expires_minute')}, result = null, reason = null, detail = null, label = null`;
}

/** What is answered for each of `seen`, and of `taken` where it is among those. */
export const takenColumns = (): string => `taken.key is not null as taken, coalesce(taken.fence, seen.fence) as fence,
  coalesce(taken.attempts, seen.attempts) as attempts, coalesce(taken.orphaned, seen.orphaned) as orphaned, ${seenColumns('seen')}`;

/** Their names and types. */
export const takenTypes = `taken boolean, fence bigint, attempts integer, orphaned boolean, fingerprint bytea, state smallint, result bytea, reason bytea,
  detail bytea, age_ms float8, lease_ms float8, expires_ms float8`;

/** All that a statement decides by time, it decides for the moment at which it began. */
export const now = 'statement_timestamp()';

/** Whether the row may be taken by who asks. It is asked twice: of what is seen, and again of what is there when the row has been locked. */
export function isFree(r: string, fingerprint: string, token: string): string {
  return `(${r}.expires_at <= ${now} or (
    ${isSound(r)} and (${r}.fingerprint = '' or ${fingerprint} = '' or ${r}.fingerprint = ${fingerprint})
    and (${r}.state = ${released} or (${r}.state = ${claimed} and (${r}.token = ${token} or ${r}.lease_until <= ${now})))))`;
}

/** What of a row tells its answer. Times as milliseconds from now. */
export function seenColumns(r: string): string {
  const ms = (interval: string) => `date_part('epoch', ${interval}) * 1000`;
  return `${r}.fingerprint, ${r}.state, ${r}.result, ${r}.reason, ${r}.detail,
  ${ms(`${now} - ${r}.written_at`)} as age_ms, ${ms(`${r}.lease_until - ${now}`)} as lease_ms,
  ${ms(`${r}.expires_at - ${now}`)} as expires_ms`;
}

/** Text as the table holds it: bytes in UTF-8. */
export const bytesOf = (text: string): Buffer => Buffer.from(text, 'utf8');
export const textOf = (bytes: Buffer | null): string => bytes?.toString('utf8') ?? '';

/** A record that was damaged from outside is nobody's claim. */
export const isSound = (r: string): string => `octet_length(${r}.fingerprint) in (0, 16)`;

/** What `takeSql` answers for each ask. */
export interface Taken {
  readonly taken: boolean;
  readonly fence: string;
  readonly attempts: number;
  readonly orphaned: boolean;
  readonly fingerprint: Buffer | null;
  readonly state: number | null;
  readonly result: Buffer | null;
  readonly reason: Buffer | null;
  readonly detail: Buffer | null;
  readonly age_ms: number;
  readonly lease_ms: number;
  readonly expires_ms: number;
}

/**
 * The answer to one ask; undefined where what was seen does not explain why it was not taken, because somebody changed it in the meantime.
 */
export function answerOf(ask: Ask, row: Taken): Answer | undefined {
  const { fingerprint, state } = row;
  if (row.taken) return { state: 'claimed', fence: Number(row.fence), attempt: row.attempts, orphaned: row.orphaned };
  if (state === null || fingerprint === null || row.expires_ms <= 0) return undefined;
  const damage = damageOf(row);
  if (damage) return { state: 'corrupt', detail: damage };
  if (fingerprint.length > 0 && ask.fingerprint !== '' && !fingerprint.equals(fingerprintToBytes(ask.fingerprint)))
    return { state: 'mismatch' };
  switch (state) {
    case completed:
      return { state: 'completed', result: row.result?.toString('utf8'), ageMs: Math.max(0, row.age_ms) };
    case parked:
      return { state: 'parked', reason: textOf(row.reason), detail: textOf(row.detail), attempts: row.attempts };
    case claimed:
      return row.lease_ms > 0 ? { state: 'busy', remainingMs: row.lease_ms } : undefined;
    default:
      return undefined;
  }
}

/** Why a row can't be a record, or undefined. Only somebody else's hand can have made it so. */
export function damageOf(row: {
  readonly key?: Buffer;
  readonly fingerprint: Buffer | null;
  readonly state: number | null;
}): string | undefined {
  if (row.state === null || row.fingerprint === null) return undefined;
  if (row.state < claimed || row.state > parked) return `state ${row.state}`;
  if (row.fingerprint.length !== 0 && row.fingerprint.length !== 16) return `a fingerprint of ${row.fingerprint.length} bytes`;
  if (row.key && row.key.length !== keyBytes) return `a key of ${row.key.length} bytes`;
  return undefined;
}
