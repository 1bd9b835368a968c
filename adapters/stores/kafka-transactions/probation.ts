import type { Kind, LogRecord } from './record.ts';

/**
 * A message that kills its process takes the count of its attempt with it, because that count is in the transaction that never commits. So a
 * partition whose owners die without committing anything is put on probation: its units take 64 messages at most, then 8, then one. A message
 * that is taken alone has its attempt written to the log before its handler runs, and is parked once there are too many. Each unit that
 * completes or parks something lets the next take four times as many.
 *
 * All of it follows from the log: an owner begins with `assigned`, and ends with `returned` if it can.
 */
export function limitAfter({ kind, limit: written }: Pick<LogRecord, 'kind' | 'limit'>, limit: number, last: Kind | undefined): number {
  if (kind === 'unit') return written === 0 ? Number.POSITIVE_INFINITY : written;
  if (kind !== 'assigned' || last === undefined || last === 'returned') return limit;
  if (limit !== Number.POSITIVE_INFINITY) return Math.max(1, Math.floor(limit / 8));
  return last === 'assigned' ? firstLimit : limit;
}

const firstLimit = 64;

/** The next unit's limit, as it is written to the log: 0 for none. */
export function nextLimit(limit: number, hasEnded: boolean): number {
  const next = hasEnded ? limit * 4 : limit;
  return next > 1_024 ? 0 : next;
}
