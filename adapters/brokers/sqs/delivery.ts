import type { Delivery, Message } from '../../../src/message.ts';
import type { SqsMessage } from './client.ts';

/** A message as SQS handed it out, with what is needed to answer for it. */
export interface SqsDelivery extends Delivery {
  readonly message: Message & { readonly body: string };
  /** The receipt handle of this very delivery. A later delivery of the same message has another. */
  readonly handle: string;
  readonly raw: SqsMessage;
  /** ApproximateReceiveCount, this delivery included. */
  readonly receiveCount: number;
  /** The earliest moment at which SQS can have handed it out, on the receiver's monotonic clock. Its 12 hours count from there. */
  readonly handedOutAt: number;
}

/** Reads a received message. Undefined if it has no id or no receipt handle, which SQS always gives. */
export function deliveryOf(raw: SqsMessage, fifo: boolean, handedOutAt: number, visibilityMs: number): SqsDelivery | undefined {
  const { MessageId: id, ReceiptHandle: handle, Attributes: system = {} } = raw;
  if (id === undefined || handle === undefined) return undefined;
  const receiveCount = wholeNumber(system['ApproximateReceiveCount']);
  return {
    message: { id, body: raw.Body ?? '', headers: headersOf(raw) },
    // A group id on a standard queue is a tenant's label for fair queues: it promises no order.
    orderingKey: fifo ? system['MessageGroupId'] : undefined,
    sentAtMs: wholeNumber(system['SentTimestamp']),
    redelivered: receiveCount !== 1,
    heldUntil: handedOutAt + visibilityMs,
    handle,
    raw,
    receiveCount: receiveCount ?? 1,
    handedOutAt,
  };
}

/** Message attributes that are text: types String and Number, custom types such as `String.uuid` included. */
function headersOf({ MessageAttributes = {} }: SqsMessage): Record<string, string> {
  // No prototype: an attribute called `__proto__` is a name like any other.
  const headers: Record<string, string> = Object.create(null);
  for (const [name, { StringValue }] of Object.entries(MessageAttributes)) {
    if (StringValue !== undefined) headers[name] = StringValue;
  }
  return headers;
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}
