import { sleep, type World } from '../../../src/clock.ts';
import { describeError, ReceiverError } from '../../../src/errors.ts';
import type { SqsCalls, SqsSent } from './client.ts';
import { entryError, isPassing, isPassingFailure } from './failures.ts';
import { backoffMs, within } from './link.ts';
import type { Outgoing } from './outgoing.ts';
import { entryId } from './persist.ts';

/** What became of one message. */
export type SqsSendResult =
  | { readonly state: 'sent'; readonly messageId: string; readonly sequenceNumber?: string | undefined }
  /**
   * `retriable`: sending it again, with the same key, may succeed, and is safe: it may have arrived already. On a FIFO queue messages
   * behind a failed one of their group are not sent, and are retriable too. `refused`: for what the message is, not for what became of its request.
   */
  | { readonly state: 'failed'; readonly error: ReceiverError; readonly retriable: boolean; readonly refused: boolean };

export interface Sending {
  readonly calls: Pick<SqsCalls, 'sendMessageBatch'>;
  readonly queueUrl: string;
  readonly world: World;
  readonly requestMs: number;
  readonly attempts: number;
}

/** Sends one batch until each entry is sent, refused for good, or the tries are used up. Answers in the order given; never rejects. */
export async function sendBatch(sending: Sending, batch: readonly Outgoing[], signal: AbortSignal): Promise<SqsSendResult[]> {
  const results: SqsSendResult[] = [];
  let open = [...batch.keys()];
  for (let attempt = 1; open.length > 0; attempt++) {
    const answers = await sendOnce(
      sending,
      open.map((i) => batch[i]!),
      signal,
    );
    open.forEach((i, at) => (results[i] = answers[at]!));
    if (attempt === sending.attempts || signal.aborted) return results;
    open = open.filter((i) => isRetriable(results[i]!));
    if (open.length > 0) await sleep(sending.world.clock, backoffMs(attempt - 1, 5_000, sending.world), signal);
  }
  return results;
}

async function sendOnce(sending: Sending, batch: readonly Outgoing[], signal: AbortSignal): Promise<SqsSendResult[]> {
  const request = { QueueUrl: sending.queueUrl, Entries: batch.map(({ entry }, i) => ({ ...entry, Id: entryId(i) })) };
  try {
    const answer = await within(sending.world.clock, sending.requestMs, signal, (abortSignal) =>
      sending.calls.sendMessageBatch(request, { abortSignal }),
    );
    const sent = new Map(answer.Successful?.map((success) => [success.Id, success]));
    const failed = new Map(answer.Failed?.map((failure) => [failure.Id, failure]));
    return batch.map((_, i) => {
      const success = sent.get(entryId(i));
      if (success) return sentResult(success);
      const failure = failed.get(entryId(i)) ?? { Message: 'the answer does not name it' };
      const retriable = isPassingFailure(failure);
      return { state: 'failed', error: entryError('SendMessageBatch', failure), retriable, refused: !retriable };
    });
  } catch (cause) {
    const error = new ReceiverError('broker', `SendMessageBatch failed: ${describeError(cause)}`, { cause });
    return batch.map(() => ({ state: 'failed', error, retriable: isPassing(cause), refused: false }));
  }
}

function isRetriable(result: SqsSendResult): boolean {
  return result.state === 'failed' && result.retriable;
}

function sentResult({ MessageId = '', SequenceNumber }: SqsSent): SqsSendResult {
  return { state: 'sent', messageId: MessageId, ...(SequenceNumber !== undefined && { sequenceNumber: SequenceNumber }) };
}
