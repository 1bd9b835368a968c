import { ReceiverError } from '../../../src/errors.ts';
import type { Link } from './link.ts';
import { type CheckedOptions, defaultVisibilityMs } from './options.ts';
import { deadLetterRetentionMs, horizonOf, type QueueFacts, readQueue } from './queue.ts';
import type { Receiving } from './receive.ts';

/**
 * Reads the queue's settings and refuses those that make the promise impossible. Undefined if `stop` is aborted meanwhile.
 * @throws ReceiverError `broker`, `retention-too-short`
 */
export async function prepare(link: Link, options: CheckedOptions, stop: AbortSignal): Promise<Receiving | undefined> {
  const { receiver, queueUrl, waitMs } = options;
  const queue = await readQueue(link, queueUrl, stop);
  if (!queue) return undefined;
  refuseImpossible(queue, options);
  const horizon =
    options.horizonMs === undefined
      ? horizonOf(queue, queue.redrive && (await deadLetterRetentionMs(link, queue.redrive.targetArn, stop)))
      : { ms: options.horizonMs, where: 'option `horizonMs`' };
  if (stop.aborted) return undefined;
  receiver.requireRetention(horizon.ms, `${queueUrl}: ${horizon.where}`);
  const visibilityMs = options.visibilityMs ?? defaultVisibilityMs(queue.visibilityMs, receiver.leaseMs);
  return { receiver, fifo: queue.fifo, visibilityMs, waitMs };
}

function refuseImpossible({ redrive }: QueueFacts, { queueUrl, deadLetter }: CheckedOptions): void {
  if (deadLetter === 'redrive' && !redrive) {
    throw new ReceiverError(
      'broker',
      `Expected ${queueUrl} to have a RedrivePolicy, because \`deadLetter\` is 'redrive', got none. Give it one, or set \`deadLetter: { queueUrl }\`.`,
    );
  }
  // A receive whose answer is lost counts too, so a message could be moved away that no handler has ever seen.
  if (redrive && redrive.maxReceiveCount < 2) {
    throw new ReceiverError('broker', `Expected maxReceiveCount of ${queueUrl} to be 2 or more, got ${redrive.maxReceiveCount}`);
  }
}
