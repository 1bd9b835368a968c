import { sleep } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import type { Receiver } from '../../../src/receiver.ts';
import { deliveryOf, type SqsDelivery } from './delivery.ts';
import { isPassing } from './failures.ts';
import { backoffMs, type Link, within } from './link.ts';

/** How the poller receives. */
export interface Receiving {
  readonly receiver: Receiver;
  readonly fifo: boolean;
  readonly visibilityMs: number;
  readonly waitMs: number;
}

/** SQS knows a ReceiveRequestAttemptId for five minutes. */
const maxAttemptMs = 4 * 60_000;

/**
 * One logical receive of `limit` messages at most: asks again after errors, until SQS answers. Undefined when `stop` was aborted or the
 * receiver has been stopped.
 *
 * On a FIFO queue all tries of one logical receive share a ReceiveRequestAttemptId, and no other receive has it. So messages whose answer
 * was lost come with the next try, instead of blocking their groups until their visibility ends. The SDK's own retries send it too.
 */
export async function receive(link: Link, how: Receiving, limit: number, stop: AbortSignal): Promise<SqsDelivery[] | undefined> {
  const { calls, queueUrl, world } = link;
  const { clock } = world;
  let attempt: { id: string; until: number } | undefined;
  for (let failures = 0; await how.receiver.ready(stop); failures++) {
    const askedAt = clock.now();
    // Later the messages may be somebody else's.
    if (how.fifo && (!attempt || askedAt >= attempt.until)) {
      attempt = { id: world.random.token(), until: askedAt + Math.min(maxAttemptMs, how.visibilityMs / 2) };
    }
    try {
      const { Messages: messages = [] } = await within(clock, how.waitMs + link.requestMs, stop, (abortSignal) =>
        calls.receiveMessage(
          {
            QueueUrl: queueUrl,
            MaxNumberOfMessages: limit,
            WaitTimeSeconds: how.waitMs / 1_000,
            VisibilityTimeout: how.visibilityMs / 1_000,
            MessageSystemAttributeNames: ['All'],
            MessageAttributeNames: ['All'],
            ...(attempt && { ReceiveRequestAttemptId: attempt.id }),
          },
          { abortSignal },
        ),
      );
      if (messages.length === 0) await pauseAfterNothing(link, askedAt, stop);
      const handedOutAt = earliestHandOut(askedAt, clock.now(), how.visibilityMs);
      const deliveries = messages.map((message) => deliveryOf(message, how.fifo, handedOutAt, how.visibilityMs));
      if (deliveries.includes(undefined))
        link.report(new ReceiverError('broker', 'Received a message without an id or a receipt handle'), 'receive');
      return deliveries.filter((delivery) => delivery !== undefined);
    } catch (error) {
      if (stop.aborted) return undefined;
      link.report(error, 'receive');
      if (!isPassing(error)) attempt = undefined;
      await sleep(clock, backoffMs(failures, 20_000, world), stop);
    }
  }
  return undefined;
}

/**
 * SQS counts visibility from the moment at which it hands a message out, which it does not tell. That is after the request was sent, and a
 * long poll may have been waiting for 20 s since then: taking that moment would let most messages look half expired. So: an answer is on its way
 * for 5 s at most, or a quarter of the visibility if that is less. Where this is wrong (a stalled process, a bad network) a message may be
 * started that somebody else has got too; the claim in the store decides between them.
 */
function earliestHandOut(askedAt: number, answeredAt: number, visibilityMs: number): number {
  return Math.max(askedAt, answeredAt - Math.min(5_000, visibilityMs / 4));
}

/** An empty answer that comes at once (short polling, or a broker that does not wait) must not make a hot loop. */
async function pauseAfterNothing(link: Link, askedAt: number, stop: AbortSignal): Promise<void> {
  const leftMs = 1_000 - (link.world.clock.now() - askedAt);
  if (leftMs > 0) await sleep(link.world.clock, leftMs, stop);
}
