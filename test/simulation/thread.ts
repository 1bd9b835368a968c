import { parentPort } from 'node:worker_threads';
import { addCounts } from './coverage.ts';
import type { BrokerKind, Way } from './scenario.ts';
import { simulate } from './simulate.ts';
import { noCounts } from './watch.ts';

/** A share of seeds for one thread. */
export interface Share {
  readonly way: Way;
  readonly broker: BrokerKind;
  readonly from: number;
  readonly count: number;
}

export interface Done {
  readonly share: Share;
  readonly counts: ReturnType<typeof noCounts>;
  readonly failing: readonly number[];
}

// A stack for each aborted request would cost a quarter of the time.
Error.stackTraceLimit = 0;

parentPort!.on('message', async (share: Share) => {
  const counts = noCounts();
  const failing: number[] = [];
  for (let seed = share.from; seed < share.from + share.count; seed++) {
    const report = await simulate({ seed, way: share.way, broker: share.broker });
    addCounts(counts, report.counts);
    if (report.violations.length > 0) failing.push(seed);
  }
  parentPort!.postMessage({ share, counts, failing } satisfies Done);
});
