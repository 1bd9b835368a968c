import type { SqsDelivery } from './delivery.ts';
import type { Link } from './link.ts';
import { entryId, maxEntries, type Persist, persist } from './persist.ts';

/** SQS hides a message for 12 hours at most, counted from the moment it was handed out (ChangeMessageVisibility). */
export const maxHiddenMs = 43_200_000;

/** A delivery and how long its message is to stay hidden from now on. */
export interface Hiding {
  readonly delivery: SqsDelivery;
  readonly forMs: number;
}

/** Changes the visibility of deliveries, ten in a request. */
export function hiding(link: Link, giveUpMs: number): Persist<Hiding> {
  const { calls, queueUrl, world } = link;
  return persist(link, 'visibility', giveUpMs, (entries, abortSignal) =>
    calls.changeMessageVisibilityBatch(
      {
        QueueUrl: queueUrl,
        Entries: entries.map(({ delivery, forMs }, i) => ({
          Id: entryId(i),
          ReceiptHandle: delivery.handle,
          VisibilityTimeout: wholeSeconds(forMs, leftOfTotalMs(delivery, world.clock.now())),
        })),
      },
      { abortSignal },
    ),
  );
}

/**
 * `Source.hold` for SQS: hides deliveries for `visibilityMs` from now on. False if SQS has taken one back, or would not hide it long enough
 * because its 12 hours are nearly over; undefined if that could not be found out.
 */
export function holding(
  link: Link,
  visibilityMs: number,
): (deliveries: readonly SqsDelivery[], forMs: number) => Promise<(boolean | undefined)[]> {
  const { clock } = link.world;
  return async (deliveries, forMs) => {
    const now = clock.now();
    // SQS counts in whole seconds, and the request leaves a little later.
    const held: (boolean | undefined)[] = deliveries.map((delivery) => leftOfTotalMs(delivery, now) - 1_000 >= forMs);
    const holdable = [...held.keys()].filter((i) => held[i]);
    const requests: Promise<void>[] = [];
    for (let at = 0; at < holdable.length; at += maxEntries) {
      const indexes = holdable.slice(at, at + maxEntries);
      // One try: the receiver's next beat is the second one. Requests don't wait for each other, so that one that hangs delays ten only.
      const hide = hiding(link, 0)(indexes.map((i) => ({ delivery: deliveries[i]!, forMs: Math.max(visibilityMs, forMs) })));
      requests.push(hide.then((outcomes) => outcomes.forEach((outcome, k) => (held[indexes[k]!] = isHeld[outcome]))));
    }
    await Promise.all(requests);
    return held;
  };
}

const isHeld = { done: true, lost: false, failed: undefined } as const;

function leftOfTotalMs(delivery: SqsDelivery, now: number): number {
  return Math.max(0, maxHiddenMs - (now - delivery.handedOutAt));
}

/** SQS counts in seconds. A delay is rounded up, and the limit down. */
function wholeSeconds(ms: number, limitMs: number): number {
  return Math.min(Math.ceil(ms / 1_000), Math.floor(limitMs / 1_000));
}
