import { entryWords } from './ids.ts';
import type { LogRecord } from './record.ts';

/**
 * A message that kills its process takes the count of its attempt with it, because that count is in the transaction that never commits. So a
 * partition whose owners die one after another without having finished anything is put on probation: the next units take 64 messages at most, then
 * 8, then one. A message that is taken alone has its attempt written to the log before its handler runs, and is parked when there are too many.
 * Probation ends when as many messages have been finished as the unit can have had in which the last owner died.
 *
 * All of it follows from the log: an owner begins with `assigned`, and ends with `returned` if it can.
 */
export interface Probation {
  /** How many messages a unit may take; 0 for any number. */
  readonly limit: number;
  /** How many messages are still to be finished under this limit. */
  readonly left: number;
}

export const free: Probation = { limit: 0, left: 0 };

const first: Probation = { limit: 64, left: 4_096 };

/** Follows the log, record by record. */
export function probationWatch(): { readonly now: Probation; apply(record: LogRecord): void } {
  let now = free;
  /** What the last owner has come to: `begun` if it has finished nothing, and not given the partition back. */
  let last: 'begun' | 'finished' | 'returned' = 'returned';
  return {
    get now() {
      return now;
    },
    apply(record) {
      if (record.kind === 'unit') {
        now = record.probation;
        if (finishedBy(record) > 0) last = 'finished';
      } else if (record.kind === 'returned') {
        last = 'returned';
      } else if (record.kind === 'assigned') {
        if (last !== 'returned') now = closer(now, last === 'begun');
        last = 'begun';
      }
    },
  };
}

/** After a death. One on probation died of one of the messages that its unit had taken. */
function closer(now: Probation, idle: boolean): Probation {
  if (now.limit === 0) return idle ? first : now;
  return now.limit === 1 ? now : { limit: now.limit / 8, left: now.limit };
}

/** What a unit leaves of it. */
export function after({ limit, left }: Probation, unit: Pick<LogRecord, 'entries' | 'notes'>): Probation {
  const rest = left - finishedBy(unit);
  return rest > 0 ? { limit, left: rest } : free;
}

/** How many messages a unit has completed or parked. */
function finishedBy({ entries, notes }: Pick<LogRecord, 'entries' | 'notes'>): number {
  return entries.length / entryWords + notes.filter(({ parked }) => parked).length;
}
