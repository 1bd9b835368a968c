import type { Source, Verdict } from '../../../src/message.ts';
import type { SqsDelivery } from './delivery.ts';
import { type Decision, inGroups } from './groups.ts';
import type { Link } from './link.ts';
import type { Receiving } from './receive.ts';
import type { Settle } from './settle.ts';
import type { Slots } from './slots.ts';
import { holding } from './visibility.ts';

/** Gives the deliveries of each receive to the receiver, and its verdicts to the broker as they come. Never rejects. */
export function handling(link: Link, how: Receiving, settle: Settle, places: Slots): (deliveries: readonly SqsDelivery[]) => Promise<void> {
  const settledOf = new WeakMap<SqsDelivery, (delivery: SqsDelivery, verdict: Verdict) => void>();
  const hold = holding(link, how.visibilityMs);
  /** The heartbeat that is under way. */
  let beat: Promise<unknown> = Promise.resolve();
  // One source for all receives of a poll, so that a heartbeat extends what is left of them in as few requests as there can be.
  const source: Source<SqsDelivery> = {
    hold: (deliveries, forMs) => {
      const held = hold(deliveries, forMs);
      beat = held;
      return held;
    },
    settled: (delivery, verdict) => settledOf.get(delivery)?.(delivery, verdict),
  };
  // For a receiver that breaks its promise to answer: the message stays hidden as long as it would by itself.
  const unknown: Verdict = { action: 'retry', reason: 'store', afterMs: how.visibilityMs };

  async function answer(decisions: readonly Decision[]): Promise<void> {
    try {
      // A heartbeat that overtakes a change of visibility would undo it.
      if (decisions.some(({ verdict }) => verdict.action !== 'ack')) await beat;
      await settle(decisions);
    } catch (error) {
      link.report(error, 'process');
    }
    places.give(decisions.length);
  }

  return async (deliveries) => {
    const settled = inGroups(deliveries, (decisions) => void answer(decisions));
    for (const delivery of deliveries) settledOf.set(delivery, settled);
    let verdicts: Verdict[] = [];
    try {
      verdicts = await how.receiver.process(deliveries, source);
    } catch (error) {
      link.report(error, 'process');
    }
    deliveries.forEach((delivery, i) => settled(delivery, verdicts[i] ?? unknown));
  };
}
