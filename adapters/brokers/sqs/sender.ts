import { realWorld, type World } from '../../../src/clock.ts';
import { describeError, expectNumber, expectOptions, ReceiverError, refuseOption } from '../../../src/errors.ts';
import { type SqsClient, sqsCalls } from './client.ts';
import { maxMessageBytes } from './entries.ts';
import { chunksOf, type Outgoing, outgoingOf, type Reading } from './outgoing.ts';
import { isFifo } from './queue.ts';
import { type Sending, type SqsSendResult, sendBatch } from './send-batch.ts';

/** Options of `sqsSender`. All times are in milliseconds. */
export interface SqsSenderOptions<Message> {
  /** `SQS` or `SQSClient` of `@aws-sdk/client-sqs`. Needs sqs:SendMessage. */
  readonly client: SqsClient<'sendMessageBatch'>;
  readonly queueUrl: string;
  /**
   * What makes two messages the same: the id of the order, of the event. It travels in an attribute, because a message gets another
   * MessageId when it is sent again or redriven; on a FIFO queue also as MessageDeduplicationId, which SQS forgets after five minutes. The
   * receiver reads it with `key: attribute('idempotency-key')`.
   */
  readonly key: (message: Message) => string;
  /** Messages of one group are handled in order. Required on a FIFO queue; on a standard queue it is the tenant of fair queues. */
  readonly group?: (message: Message) => string;
  /** @default text as it is, everything else as JSON */
  readonly body?: (message: Message) => string;
  /** Further attributes, nine at most. */
  readonly attributes?: (message: Message) => Readonly<Record<string, string>>;
  /** Name of the attribute that carries the key. @default 'idempotency-key' */
  readonly keyAttribute?: string;
  /** What the queue takes in one message, attributes included: 262_144 for set-ups from before August 2025. @default 1_048_576 */
  readonly maxMessageBytes?: number;
  /** Tries for each message, with the same key, before it is answered as failed. @default 5 */
  readonly attempts?: number;
  /** A request that takes longer counts as failed, its outcome unknown. @default 5_000 */
  readonly requestMs?: number;
  /** Time and chance. @default the machine's own */
  readonly world?: World;
}

/** Sends messages so that their receiver can tell when one comes twice. */
export interface SqsSender<Message> {
  /**
   * Sends in batches, and answers for each message in the order given. Never rejects. After `signal` is aborted, what is not known to be
   * sent is answered as failed.
   *
   * On a FIFO queue batches go one after another. If SQS refuses one entry of a batch and takes a later one of the same group, the refused
   * one comes behind it when it is tried again: batches of SQS are not all or nothing.
   */
  send(messages: readonly Message[], options?: { readonly signal?: AbortSignal }): Promise<SqsSendResult[]>;
}

/** Batch requests of a standard queue that are under way at once. */
const parallelRequests = 4;

/** Makes a sender for one queue, standard or FIFO. @throws ReceiverError `invalid-option` */
export function sqsSender<Message>(options: SqsSenderOptions<Message>): SqsSender<Message> {
  const reading = readingOf(options);
  const sending: Sending = {
    calls: sqsCalls(options.client, ['sendMessageBatch']),
    queueUrl: options.queueUrl,
    world: options.world ?? realWorld,
    requestMs: expectNumber('requestMs', options.requestMs ?? 5_000, { atLeast: 1, atMost: 60_000 }),
    attempts: expectNumber('attempts', options.attempts ?? 5, { atLeast: 1, atMost: 20, integer: true }),
  };

  return {
    async send(messages, { signal = new AbortController().signal } = {}) {
      const results: SqsSendResult[] = [];
      /** Groups of a FIFO queue with a message that failed: nothing is sent ahead of it. */
      const halted = new Set<string | undefined>();
      const fail = (index: number, group: string | undefined, result: SqsSendResult) => {
        results[index] = result;
        if (reading.fifo && group !== undefined) halted.add(group);
      };

      const outgoing: Outgoing[] = [];
      messages.forEach((message, index) => {
        let group: string | undefined;
        try {
          group = reading.group?.(message);
          if (halted.has(group)) results[index] = behindFailed;
          else outgoing.push(outgoingOf(reading, message, index, group));
        } catch (error) {
          fail(index, group, { state: 'failed', error: asReceiverError(error), retriable: false, refused: true });
        }
      });

      // A message that can't be sent halts what comes behind it, not what comes before.
      halted.clear();
      const chunks = chunksOf(outgoing, reading.maxBytes);
      const sendChunks = async () => {
        for (let chunk = chunks.shift(); chunk; chunk = chunks.shift()) {
          for (const { index } of chunk) results[index] = behindFailed;
          const free = chunk.filter(({ group }) => !halted.has(group));
          const answers = await sendBatch(sending, free, signal);
          free.forEach(({ index, group }, i) => {
            const answer = answers[i]!;
            if (answer.state === 'sent') results[index] = answer;
            else fail(index, group, answer);
          });
        }
      };
      await Promise.all(Array.from({ length: reading.fifo ? 1 : parallelRequests }, sendChunks));
      return results;
    },
  };
}

const behindFailed: SqsSendResult = {
  state: 'failed',
  error: new ReceiverError('broker', 'Not sent, because an earlier message of its group has failed'),
  retriable: true,
  refused: false,
};

function readingOf<Message>(options: SqsSenderOptions<Message>): Reading<Message> {
  expectOptions(options, '`{ client, queueUrl, key }`');
  const { queueUrl, key, group, body = asText, attributes, keyAttribute = 'idempotency-key' } = options;
  if (typeof queueUrl !== 'string' || !URL.canParse(queueUrl)) refuseOption('queueUrl', 'the URL of a queue', queueUrl);
  if (typeof key !== 'function') refuseOption('key', 'a function', key);
  const fifo = isFifo(queueUrl);
  if (fifo && typeof group !== 'function') refuseOption('group', 'a function, because the queue is a FIFO queue', group);
  // SQS keeps names that begin with AWS or Amazon for itself (message attribute components, Developer Guide).
  if (!/^(?!aws\.|amazon\.|\.)(?!.*\.\.)[\w.-]{1,256}(?<!\.)$/i.test(keyAttribute))
    refuseOption('keyAttribute', 'a name of an attribute', keyAttribute);
  const limits = { atLeast: 1_024, atMost: maxMessageBytes, integer: true };
  const maxBytes = expectNumber('maxMessageBytes', options.maxMessageBytes ?? maxMessageBytes, limits);
  return { fifo, maxBytes, keyAttribute, key, group, body, attributes };
}

function asText(message: unknown): string {
  return typeof message === 'string' ? message : JSON.stringify(message);
}

function asReceiverError(error: unknown): ReceiverError {
  if (error instanceof ReceiverError) return error;
  return new ReceiverError('broker', `The message could not be read: ${describeError(error)}`, { cause: error });
}
