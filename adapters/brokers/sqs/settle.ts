import type { Verdict } from '../../../src/message.ts';
import { deadLettering } from './dead-letter.ts';
import { deleting } from './deletes.ts';
import type { SqsDelivery } from './delivery.ts';
import type { Decision } from './groups.ts';
import type { Link } from './link.ts';
import type { SqsDeadLetter } from './options.ts';
import { hiding } from './visibility.ts';

/**
 * Tells the broker what becomes of deliveries. Resolves when it has been told, or when telling it has been given up; then the message's
 * visibility ends by itself and it comes again. Never rejects.
 */
export type Settle = (decisions: readonly Decision[]) => Promise<void>;

export function settling(link: Link, deadLetter: SqsDeadLetter, visibilityMs: number): Settle {
  // After `visibilityMs` the message has most likely been handed out again, and its new delivery is answered instead.
  const remove = deleting(link, visibilityMs);
  const hide = hiding(link, visibilityMs);
  const sendAway = deadLetter === 'redrive' ? undefined : deadLettering(link, deadLetter.queueUrl, visibilityMs);

  async function putAside(delivery: SqsDelivery, verdict: Extract<Verdict, { action: 'dead-letter' }>): Promise<void> {
    if (sendAway && (await sendAway(delivery, verdict))) await remove([delivery]);
    else await hide([{ delivery, forMs: redriveDelayMs(delivery) }]);
  }

  return async (decisions) => {
    const acked: SqsDelivery[] = [];
    const hidden: { delivery: SqsDelivery; forMs: number }[] = [];
    const tasks: Promise<unknown>[] = [];
    for (const { delivery, verdict } of decisions) {
      if (verdict.action === 'ack') acked.push(delivery);
      else if (verdict.action === 'dead-letter') tasks.push(putAside(delivery, verdict));
      else hidden.push({ delivery, forMs: verdict.afterMs });
    }
    if (acked.length > 0) tasks.push(remove(acked));
    if (hidden.length > 0) tasks.push(hide(hidden));
    await Promise.all(tasks);
  };
}

/** A parked message is only waiting to be moved: each receive brings it nearer, so it comes soon at first, and then less often. */
function redriveDelayMs({ receiveCount }: SqsDelivery): number {
  return Math.min(30_000, 1_000 * 2 ** Math.min(receiveCount - 1, 10));
}
