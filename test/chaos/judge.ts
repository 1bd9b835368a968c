import type { Mode, Order } from './cell.ts';
import type { Blow } from './fleet.ts';
import type { Entry } from './ledger.ts';

/** What workers told about one message, as it came in. */
export interface Event {
  readonly is: 'claimed' | 'effect' | 'recorded' | 'duplicate';
  readonly worker: number;
  readonly at: number;
}

export interface Outage {
  readonly of: 'store' | 'broker';
  /** Only for this worker, which has told so. */
  readonly worker?: number;
  readonly at: number;
  readonly until: number;
}

/** All that is known when a run is over. */
export interface Evidence {
  readonly mode: Mode;
  readonly isOrdered: boolean;
  readonly leaseMs: number;
  /** By id; and how often each was sent. */
  readonly sent: ReadonlyMap<string, { readonly order: Order; readonly times: number }>;
  readonly entries: readonly Entry[];
  readonly events: ReadonlyMap<string, readonly Event[]>;
  readonly blows: ReadonlyMap<number, readonly Blow[]>;
  readonly outages: readonly Outage[];
}

/** Why an effect was asked for again. */
export type Why = 'killed' | 'stopped' | 'stalled' | 'store out' | 'woken late';

export interface Verdict {
  readonly lost: readonly string[];
  /** Messages whose effect happened more often than once. */
  readonly doubled: readonly string[];
  /** Those of them that the mode allows, by what had happened between effect and record. */
  readonly explained: Readonly<Partial<Record<Why, number>>>;
  /** Those that it doesn't allow. */
  readonly wrong: readonly string[];
  readonly disordered: readonly string[];
}

/** Compares what was sent with what the ledger has. */
export function judge(evidence: Evidence): Verdict {
  const { mode, isOrdered, sent, entries } = evidence;
  const byId = Map.groupBy(entries, ({ id }) => id);
  const lost = [...sent.keys()].filter((id) => !byId.has(id)).map((id) => `${id}: ${JSON.stringify(evidence.events.get(id) ?? [])}`);
  const doubled: string[] = [];
  const wrong: string[] = [...byId.keys()].filter((id) => !sent.has(id)).map((id) => `${id} was never sent`);
  const explained: Partial<Record<Why, number>> = {};
  for (const [id, done] of byId) {
    // A naive consumer is not blamed for what its producer sent twice.
    const allowed = mode === 'naive' ? (sent.get(id)?.times ?? 1) : 1;
    if (done.length <= allowed) continue;
    doubled.push(id);
    if (mode === 'transactional' || mode === 'naive') {
      wrong.push(`${id} ${done.length} times`);
      continue;
    }
    for (let i = 1; i < done.length; i++) {
      const [before, again] = [done[i - 1]!, done[i]!];
      if (mode === 'fenced' && !(again.fence! > before.fence!)) wrong.push(`${id} again with the fence ${again.fence}`);
      const why = reasonFor(before, again, evidence);
      if (why) explained[why] = (explained[why] ?? 0) + 1;
      else wrong.push(`${id} again, for no reason: ${JSON.stringify({ done, events: evidence.events.get(id) })}`);
    }
  }
  return { lost, doubled, explained, wrong, disordered: isOrdered ? disorder(entries) : [] };
}

/** What lets `again` happen after `before`. A blow that fell after the record, or long after, is no reason. */
function reasonFor(before: Entry, again: Entry, { events, blows, outages, leaseMs }: Evidence): Why | undefined {
  const told = events.get(before.id) ?? [];
  const recorded = told.find(({ is, at }) => is === 'recorded' && at <= again.at!);
  const during = (worker: number, from: number, until: number) =>
    (blows.get(worker) ?? []).find((blow) => blow.at <= until && blow.until >= from);
  // Its worker had claimed it before the other did, or had recorded it, and stood still meanwhile.
  const claimOf = (entry: Entry) => told.findLast(({ is, worker, at }) => is === 'claimed' && worker === entry.worker && at <= entry.at!);
  const isWokenLate = (since: number): boolean => {
    const claimed = claimOf(again);
    const blow = claimed && claimed.at <= since ? during(again.worker, claimed.at, again.at!) : undefined;
    return blow !== undefined && blow.kind !== 'kill';
  };
  if (recorded) return isWokenLate(recorded.at) ? 'woken late' : undefined;
  // An effect counts as done when the ledger has read it. By then the blow may have fallen already.
  const [from, until] = [before.at! - slackMs, Math.min(again.at!, before.at! + leaseMs + slackMs)];
  const blow = during(before.worker, from, until);
  if (blow) return named[blow.kind];
  // It stood still before the effect for so long that its lease, of which two thirds are left at least, had run out: its record was refused.
  const claimed = claimOf(before);
  const earlier = claimed && during(before.worker, claimed.at, from);
  if (earlier && earlier.kind !== 'kill' && earlier.until - earlier.at >= (leaseMs * 2) / 3) return named[earlier.kind];
  const isOut = ({ of, worker, ...each }: Outage) =>
    of === 'store' && (worker ?? before.worker) === before.worker && each.at <= until && each.until >= from;
  if (outages.some(isOut)) return 'store out';
  return again.worker !== before.worker && isWokenLate(before.at!) ? 'woken late' : undefined;
}

const named: Readonly<Record<Blow['kind'], Why>> = { kill: 'killed', stop: 'stopped', stall: 'stalled' };

const slackMs = 100;

/** Messages whose first effect came after one of a later message of their key. */
function disorder(entries: readonly Entry[]): string[] {
  const seen = new Set<string>();
  const last = new Map<string, number>();
  const found: string[] = [];
  for (const { id, key, n } of entries) {
    if (seen.has(id)) continue;
    seen.add(id);
    const before = last.get(key) ?? -1;
    if (n < before) found.push(`${id} of ${key} after ${before}`);
    last.set(key, Math.max(before, n));
  }
  return found;
}
