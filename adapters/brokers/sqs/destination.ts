import type { Delivered, Destination, Outgoing } from '../../../src/effects/outbox.ts';
import type { SqsClient } from './client.ts';
import { isFifo } from './queue.ts';
import { type SqsSenderOptions, sqsSender } from './sender.ts';

/** Options of {@link sqsDestination}: see `SqsSenderOptions`. */
export type SqsDestinationOptions = Pick<
  SqsSenderOptions<Outgoing>,
  'keyAttribute' | 'maxMessageBytes' | 'attempts' | 'requestMs' | 'world'
>;

/**
 * A queue as a relay's destination, by `sqsSender`. The id travels in the attribute `idempotency-key`, for the receiver's
 * `key: attribute('idempotency-key')`; on a FIFO queue it is the MessageDeduplicationId too, and the ordering key is the group (a message without
 * one is a group of its own). A standard queue has no order. Headers become attributes, nine at most.
 *
 * @throws ReceiverError `invalid-option`
 */
export function sqsDestination(client: SqsClient<'sendMessageBatch'>, queueUrl: string, options: SqsDestinationOptions = {}): Destination {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const sender = sqsSender<Outgoing>({
    ...options,
    client,
    queueUrl,
    key: ({ id }) => id,
    body: ({ body }) => (body === null ? '' : decoder.decode(body)),
    attributes: ({ headers }) => headers,
    ...(isFifo(queueUrl) && { group: ({ orderingKey, id }: Outgoing) => orderingKey ?? id }),
  });
  return {
    async send(messages, signal) {
      const results = await sender.send(messages, { signal });
      return results.map((result): Delivered => {
        if (result.state === 'sent') return { state: 'sent' };
        const { error, refused } = result;
        return { state: refused ? 'refused' : 'failed', error };
      });
    },
  };
}
