import type { BrokerKind, Way } from './scenario.ts';
import { type Interesting, interesting } from './watch.ts';

export type Counts = Readonly<Record<Interesting, number>>;

export function addCounts(to: Record<Interesting, number>, more: Counts): void {
  for (const name of interesting) to[name] += more[name];
}

/** How often each must have been seen in 1,000 seeds, about a third of what is usual. */
const always: Partial<Counts> = {
  crashes: 700,
  pauses: 700,
  stops: 1_500,
  outages: 50,
  lostRequests: 300,
  lostReplies: 250,
  resent: 100,
  orphans: 40,
  reruns: 400,
  duplicates: 400,
  redeliveries: 2_000,
  parkedPoison: 100,
  deadLetters: 800,
  redriven: 80,
  mismatches: 20,
  tooOld: 8,
  lostWrites: 15,
};
const claiming: Partial<Counts> = { zombies: 25, busy: 150, fenced: 40, orphans: 150, abandoned: 15, forgotten: 10 };
const byWay: Record<Way, Partial<Counts>> = {
  leased: claiming,
  fenced: { ...claiming, fencedWrites: 3 },
  transactional: { inDoubt: 60, inDoubtCommitted: 20, conflicts: 20, rollbacks: 200 },
};
const byBroker: Record<BrokerKind, Partial<Counts>> = {
  standard: { copies: 60, keptDeletes: 40, batchCopies: 20 },
  fifo: { staleHandles: 100, groupStops: 60 },
  kafka: {
    redriven: 0,
    copies: 25,
    batchCopies: 100,
    groupStops: 180,
    rebalances: 2_000,
    expelled: 400,
    refusedCommits: 60,
    clientCrashes: 1_000,
  },
  'kafka-transactions': {
    ...{ redriven: 0, tooOld: 0, lostWrites: 0, orphans: 0, conflicts: 0, rollbacks: 0 },
    ...{ copies: 20, batchCopies: 120, groupStops: 40, zombies: 10, rebalances: 2_500, expelled: 500, clientCrashes: 700 },
    ...{ inDoubt: 80, inDoubtCommitted: 25, fencedProducers: 80, abortedTransactions: 180 },
  },
  calls: { redriven: 0, tooOld: 0, abandoned: 0 },
};

/** Where the two together make something rarer. */
const byCell: Readonly<Record<string, Partial<Counts>>> = { 'transactional × kafka': { inDoubtCommitted: 8, conflicts: 8 } };

/** Fewer seeds than this prove too little to be asked for more. */
const enoughSeeds = 300;

/** What was not exercised enough: a run that never got there has not shown that it works there. */
export function missing(way: Way, broker: BrokerKind, seeds: number, counts: Counts): string[] {
  if (seeds < enoughSeeds) return [];
  const needed = { ...always, ...byWay[way], ...byBroker[broker], ...byCell[`${way} × ${broker}`] };
  return Object.entries(needed).flatMap(([name, per1000]) => {
    const need = Math.floor((per1000 * seeds) / 1_000);
    const got = counts[name as Interesting];
    return got < need ? [`${way} × ${broker}: ${name} ${got}, needed ${need}`] : [];
  });
}
