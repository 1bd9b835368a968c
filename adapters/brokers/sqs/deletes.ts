import type { SqsDelivery } from './delivery.ts';
import type { Link } from './link.ts';
import { entryId, type Persist, persist } from './persist.ts';

/**
 * Deletes messages, each by the handle of the delivery that is being answered. A delete that is lost only means that the message comes
 * back, and is then acked as a duplicate: its completion is durable before it gets here.
 */
export function deleting(link: Link, giveUpMs: number): Persist<SqsDelivery> {
  return persist(link, 'delete', giveUpMs, (deliveries, abortSignal) =>
    link.calls.deleteMessageBatch(
      { QueueUrl: link.queueUrl, Entries: deliveries.map(({ handle }, i) => ({ Id: entryId(i), ReceiptHandle: handle })) },
      { abortSignal },
    ),
  );
}
