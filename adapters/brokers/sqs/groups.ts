import type { Verdict } from '../../../src/message.ts';
import type { SqsDelivery } from './delivery.ts';

/** A delivery and what is to become of it. */
export interface Decision {
  readonly delivery: SqsDelivery;
  readonly verdict: Verdict;
}

/**
 * Passes verdicts on so that each FIFO group of a receive is answered as a contiguous prefix: up to the first `retry` one by one, as
 * soon as all before it are known; from there on everything goes back together, whatever its own verdict, so that the group comes again
 * in its order. SQS hides the rest of a group behind its first hidden message, so only the first one's delay counts.
 *
 * Deliveries without an ordering key pass at once. A second verdict for the same delivery is ignored.
 */
export function inGroups(
  deliveries: readonly SqsDelivery[],
  pass: (decisions: Decision[]) => void,
): (delivery: SqsDelivery, verdict: Verdict) => void {
  const verdicts = new Map<SqsDelivery, Verdict>();
  const groups = Map.groupBy(deliveries, ({ orderingKey }) => orderingKey);

  function advance(group: SqsDelivery[]): void {
    for (let first = group[0]; first; first = group[0]) {
      const verdict = verdicts.get(first);
      if (!verdict) return;
      if (verdict.action === 'retry') return giveBack(group, verdict);
      pass([{ delivery: first, verdict }]);
      group.shift();
    }
  }

  function giveBack(group: SqsDelivery[], first: Verdict): void {
    // Until all are known one of them may still be running.
    if (!group.every((delivery) => verdicts.has(delivery))) return;
    const behind: Verdict = { action: 'retry', reason: 'order', afterMs: 0 };
    pass(group.splice(0).map((delivery, i) => ({ delivery, verdict: i === 0 ? first : behind })));
  }

  return (delivery, verdict) => {
    if (verdicts.has(delivery)) return;
    verdicts.set(delivery, verdict);
    if (delivery.orderingKey === undefined) pass([{ delivery, verdict }]);
    else advance(groups.get(delivery.orderingKey)!);
  };
}
