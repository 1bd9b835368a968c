import type { Verdict } from '../../../src/message.ts';
import type { SqsMessage, SqsSendEntry } from './client.ts';
import type { SqsDelivery } from './delivery.ts';
import { attributeBytes, bytesOf, fifoId, maxAttributes, maxMessageBytes, type SendAttributes, sendable } from './entries.ts';
import type { Link } from './link.ts';
import { entryId, persist } from './persist.ts';
import { isFifo } from './queue.ts';

type DeadLetter = Extract<Verdict, { action: 'dead-letter' }>;

/** Sends a message to the dead-letter queue. True when it has arrived there, and only then may it be deleted from its own queue. */
export function deadLettering(
  link: Link,
  targetUrl: string,
  giveUpMs: number,
): (delivery: SqsDelivery, verdict: DeadLetter) => Promise<boolean> {
  // One message in a request: ten large ones may be more than a request can hold, and dead letters are rare.
  const send = () =>
    persist<SqsSendEntry>(link, 'dead-letter', giveUpMs, ([entry], abortSignal) =>
      link.calls.sendMessageBatch({ QueueUrl: targetUrl, Entries: [entry!] }, { abortSignal }),
    );
  return async (delivery, verdict) => {
    const [outcome] = await send()([deadLetterEntry(delivery, verdict, link.queueUrl, targetUrl)]);
    return outcome === 'done';
  };
}

/**
 * The original body and attributes, and what happened. The original attributes always stay, for the idempotency key is one of them; of ours, as
 * many as SQS has room for (ten in all, 1 MiB in all), in this order: reason, id, source, attempts, detail.
 *
 * A FIFO dead-letter queue keeps the group, and drops a copy that is sent again within five minutes, by the original MessageId.
 */
export function deadLetterEntry(delivery: SqsDelivery, verdict: DeadLetter, sourceUrl: string, targetUrl: string): SqsSendEntry {
  const { message, raw } = delivery;
  const attributes = originalAttributes(raw);
  let bytes = bytesOf({ MessageBody: message.body, MessageAttributes: attributes });
  const ours: [string, string, 'String' | 'Number'][] = [
    ['dead-letter-reason', verdict.reason, 'String'],
    ['dead-letter-id', message.id, 'String'],
    ['dead-letter-source', sourceUrl.slice(sourceUrl.lastIndexOf('/') + 1), 'String'],
    ['dead-letter-attempts', String(verdict.attempts), 'Number'],
    ['dead-letter-detail', sendable(verdict.detail), 'String'],
  ];
  for (const [name, StringValue, DataType] of ours) {
    const size = attributeBytes(name, { DataType, StringValue });
    const isRoom = name in attributes || (Object.keys(attributes).length < maxAttributes && bytes + size <= maxMessageBytes);
    // SQS refuses an empty value.
    if (!isRoom || StringValue === '') continue;
    attributes[name] = { DataType, StringValue };
    bytes += size;
  }
  const group = raw.Attributes?.['MessageGroupId'];
  return {
    Id: entryId(0),
    MessageBody: message.body,
    MessageAttributes: attributes,
    ...(isFifo(targetUrl) && { MessageGroupId: group ?? fifoId(message.id), MessageDeduplicationId: fifoId(message.id) }),
  };
}

function originalAttributes({ MessageAttributes = {} }: SqsMessage): SendAttributes {
  // No prototype: an attribute called `__proto__` is a name like any other.
  const attributes: SendAttributes = Object.create(null);
  for (const [name, { DataType, StringValue, BinaryValue }] of Object.entries(MessageAttributes)) {
    if (DataType === undefined) continue;
    attributes[name] = { DataType, ...(StringValue !== undefined && { StringValue }), ...(BinaryValue !== undefined && { BinaryValue }) };
  }
  return attributes;
}
