import { ReceiverError } from '../../../src/errors.ts';
import type { SqsFailure } from './client.ts';

/** Names of refusals that pass by themselves: throttling, overload, faults of the service. */
const passing = new Set([
  'InternalError',
  'InternalFailure',
  'InternalServerError',
  'KmsThrottled',
  'OverLimit',
  'RequestThrottled',
  'RequestThrottledException',
  'RequestTimeout',
  'RequestTimeoutException',
  'ServiceUnavailable',
  'SlowDown',
  'Throttling',
  'ThrottlingException',
  'TimeoutError',
  'TooManyRequestsException',
  'AbortError',
]);

const networkCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ERR_SOCKET_TIMEOUT',
]);

/** True if the same request may well succeed later: the network, throttling, a fault of the service. Its outcome may be unknown. */
export function isPassing(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false;
  const { name, code, $retryable, $metadata, cause } = error as {
    name?: string;
    code?: string;
    $retryable?: unknown;
    $metadata?: { httpStatusCode?: number };
    cause?: unknown;
  };
  const status = $metadata?.httpStatusCode ?? 0;
  return (
    passing.has(lastPart(name)) ||
    networkCodes.has(code ?? '') ||
    $retryable !== undefined ||
    status >= 500 ||
    status === 429 ||
    (cause !== undefined && isPassing(cause))
  );
}

/** The same for one entry of a batch answer. `SenderFault` is not enough: throttling is the sender's fault too, and passes. */
export function isPassingFailure(failure: SqsFailure): boolean {
  return failure.SenderFault !== true || passing.has(lastPart(failure.Code));
}

/**
 * True if an entry says that this delivery is not ours any more: its visibility ended, or the message is gone. FIFO queues refuse such a
 * delete; standard queues answer success to it and may keep the message (API reference of DeleteMessage).
 */
export function isOwnershipLost(failure: SqsFailure): boolean {
  const code = lastPart(failure.Code);
  if (code === 'MessageNotInflight' || code === 'ReceiptHandleIsInvalid') return true;
  return (
    code === 'InvalidParameterValue' &&
    /receipt handle has expired|not available for visibility timeout change/i.test(failure.Message ?? '')
  );
}

/** An entry's refusal as an error to report. */
export function entryError(operation: string, failure: SqsFailure): ReceiverError {
  return new ReceiverError('broker', `${operation} refused an entry: ${failure.Code ?? 'no code'}: ${failure.Message ?? 'no message'}`);
}

/** Older services prefix their codes: `AWS.SimpleQueueService.NonExistentQueue`, `com.amazonaws.sqs#QueueDoesNotExist`. */
function lastPart(code: string | undefined): string {
  return code?.slice(Math.max(code.lastIndexOf('.'), code.lastIndexOf('#')) + 1) ?? '';
}
