import type {
  SqsBatchAnswer,
  SqsCalls,
  SqsFailure,
  SqsMessage,
  SqsReceiveRequest,
  SqsRequestOptions,
  SqsSendEntry,
} from '../../../../adapters/brokers/sqs/client.ts';
import type { Clock } from '../../../../src/clock.ts';

/**
 * A small model of SQS in virtual time, for the faults that no emulator offers. Its rules are those recorded against AWS itself (facts/sqs-http.md,
 * 1.1 to 1.3): a FIFO group is handed out up to its first hidden message; a FIFO delete after the visibility has ended is refused, a standard
 * one succeeds and takes the message away only while nobody else has received it; the same ReceiveRequestAttemptId gets the same answer again.
 */
export interface SqsModel extends SqsCalls {
  /** Makes a queue and answers its URL. It is a FIFO queue if its name ends in `.fifo`. */
  createQueue(name: string, attributes?: Record<string, string>): string;
  /** Puts a message into a queue; answers its id. */
  put(queueUrl: string, body: string, more?: Partial<Omit<SqsSendEntry, 'Id' | 'MessageBody'>>): string;
  /** Messages that are in a queue, hidden ones included, oldest first. */
  messages(queueUrl: string): readonly Kept[];
  /** Moves all messages of a dead-letter queue back: new ids, new time of sending (StartMessageMoveTask). */
  redrive(fromUrl: string, toUrl: string): void;
  /** Every request, in order. */
  readonly log: { readonly name: keyof SqsCalls; readonly request: any }[];
  /** Stands between the caller and the model: may throw before or after `run`, or answer something else. */
  intercept: (name: keyof SqsCalls, request: any, run: () => Promise<any>) => Promise<any>;
}

export interface Kept {
  id: string;
  body: string;
  attributes: SqsSendEntry['MessageAttributes'];
  group: string | undefined;
  deduplicationId: string | undefined;
  sentAt: number;
  visibleAt: number;
  handedOutAt: number;
  receives: number;
  handle: string | undefined;
}

interface Queue {
  url: string;
  fifo: boolean;
  attributes: Record<string, string>;
  kept: Kept[];
  /** Every handle that was ever given, also of deleted messages. */
  handles: Map<string, Kept>;
  deduplicated: Map<string, { at: number; id: string }>;
  attempts: Map<string, { at: number; given: { message: Kept; handle: string }[] }>;
}

const expired: SqsFailure = {
  Code: 'InvalidParameterValue',
  Message: 'Value x for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.',
  SenderFault: true,
};
const unavailable: SqsFailure = {
  Code: 'InvalidParameterValue',
  Message:
    'Value x for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change.',
  SenderFault: true,
};

export function sqsModel(clock: Clock): SqsModel {
  const queues = new Map<string, Queue>();
  const arnOf = (name: string) => `arn:aws:sqs:eu-west-1:000000000000:${name}`;
  let made = 0;
  const changed: (() => void)[] = [];
  const wakeAll = () => {
    for (const wake of changed.splice(0)) wake();
  };

  function queueOf(url: string): Queue {
    const queue = queues.get(url);
    if (queue) return queue;
    const error = new Error('The specified queue does not exist.');
    error.name = 'QueueDoesNotExist';
    throw Object.assign(error, { $fault: 'client', $metadata: { httpStatusCode: 400 } });
  }

  function send(queue: Queue, entry: Omit<SqsSendEntry, 'Id'>): string {
    if (entry.MessageDeduplicationId !== undefined) {
      const before = queue.deduplicated.get(entry.MessageDeduplicationId);
      if (before && clock.now() - before.at < 300_000) return before.id;
    }
    const id = `message-${++made}`;
    if (entry.MessageDeduplicationId !== undefined) queue.deduplicated.set(entry.MessageDeduplicationId, { at: clock.now(), id });
    queue.kept.push({
      id,
      body: entry.MessageBody,
      attributes: entry.MessageAttributes,
      group: entry.MessageGroupId,
      deduplicationId: entry.MessageDeduplicationId,
      sentAt: clock.wall(),
      visibleAt: 0,
      handedOutAt: 0,
      receives: 0,
      handle: undefined,
    });
    wakeAll();
    return id;
  }

  /** Messages that may be handed out, in order. In a FIFO group only those before the first hidden one. */
  function available(queue: Queue): Kept[] {
    const blocked = new Set<string | undefined>();
    return queue.kept.filter((message) => {
      const hidden = message.visibleAt > clock.now();
      if (queue.fifo && hidden) blocked.add(message.group);
      return !hidden && !(queue.fifo && blocked.has(message.group));
    });
  }

  function handOut(queue: Queue, request: SqsReceiveRequest): SqsMessage[] {
    const visibleAt = clock.now() + request.VisibilityTimeout * 1_000;
    const id = request.ReceiveRequestAttemptId;
    const before = id === undefined ? undefined : queue.attempts.get(id);
    const same = before?.given.filter(
      ({ message, handle }) => message.handle === handle && queue.kept.includes(message) && message.visibleAt > clock.now(),
    );
    if (before && same?.length && clock.now() - before.at < 300_000) {
      return same.map(({ message }) => {
        message.visibleAt = visibleAt;
        return toMessage(message);
      });
    }
    const redrive = JSON.parse(queue.attributes['RedrivePolicy'] ?? 'null') as {
      deadLetterTargetArn: string;
      maxReceiveCount: number;
    } | null;
    const given: Kept[] = [];
    for (const message of available(queue)) {
      if (given.length === request.MaxNumberOfMessages) break;
      if (redrive && message.receives >= redrive.maxReceiveCount) {
        queue.kept.splice(queue.kept.indexOf(message), 1);
        const target = [...queues.values()].find(({ attributes }) => attributes['QueueArn'] === redrive.deadLetterTargetArn)!;
        target.kept.push({ ...message, visibleAt: 0, handle: undefined, deduplicationId: queue.fifo ? message.id : undefined });
        continue;
      }
      message.receives++;
      message.handle = `${message.id}/${message.receives}`;
      // A second copy of a message counts its receives by itself, but has handles of its own.
      if (queue.handles.has(message.handle)) message.handle += `~${++made}`;
      message.handedOutAt = clock.now();
      message.visibleAt = visibleAt;
      queue.handles.set(message.handle, message);
      given.push(message);
    }
    if (id !== undefined && given.length > 0) {
      queue.attempts.set(id, { at: clock.now(), given: given.map((message) => ({ message, handle: message.handle! })) });
    }
    return given.map(toMessage);
  }

  function toMessage(message: Kept): SqsMessage {
    return {
      MessageId: message.id,
      ReceiptHandle: message.handle!,
      Body: message.body,
      Attributes: {
        ApproximateReceiveCount: String(message.receives),
        SentTimestamp: String(message.sentAt),
        ...(message.group !== undefined && { MessageGroupId: message.group }),
      },
      ...(message.attributes && { MessageAttributes: message.attributes }),
    };
  }

  async function waitFor(queue: Queue, until: number, signal: AbortSignal | undefined): Promise<void> {
    const next = Math.min(until, ...queue.kept.map(({ visibleAt }) => (visibleAt > clock.now() ? visibleAt : Number.POSITIVE_INFINITY)));
    await new Promise<void>((resolve, reject) => {
      const cancel = clock.after(next - clock.now(), resolve);
      changed.push(() => (cancel(), resolve()));
      signal?.addEventListener('abort', () => (cancel(), reject(signal.reason)), { once: true });
    });
  }

  function change(queue: Queue, handle: string, seconds: number): SqsFailure | undefined {
    const message = queue.handles.get(handle);
    if (!message) return { Code: 'ReceiptHandleIsInvalid', SenderFault: true };
    if (!queue.kept.includes(message)) return unavailable;
    const late = message.visibleAt <= clock.now() || message.handle !== handle;
    if (late && (queue.fifo || message.handle !== handle)) return expired;
    if (clock.now() + seconds * 1_000 > message.handedOutAt + 43_200_000) {
      return {
        Code: 'InvalidParameterValue',
        Message: 'Total VisibilityTimeout for the message is beyond the limit [43200 seconds]',
        SenderFault: true,
      };
    }
    const before = message.visibleAt;
    message.visibleAt = clock.now() + seconds * 1_000;
    // Who waits wakes up when the message would have come, and looks again.
    if (message.visibleAt < before) wakeAll();
    return undefined;
  }

  function remove(queue: Queue, handle: string): SqsFailure | undefined {
    const message = queue.handles.get(handle);
    if (!message) return { Code: 'ReceiptHandleIsInvalid', SenderFault: true };
    if (!queue.kept.includes(message)) return undefined;
    const late = message.visibleAt <= clock.now() || message.handle !== handle;
    if (queue.fifo && late) return expired;
    // Standard: a stale handle succeeds and keeps the message.
    if (message.handle === handle) queue.kept.splice(queue.kept.indexOf(message), 1);
    // In a FIFO group the next one can be handed out now.
    if (queue.fifo) wakeAll();
    return undefined;
  }

  function batch<Entry extends { Id: string }>(entries: readonly Entry[], each: (entry: Entry) => SqsFailure | undefined): SqsBatchAnswer {
    if (new Set(entries.map(({ Id }) => Id)).size < entries.length) {
      throw Object.assign(new Error('Two or more batch entries have the same Id.'), {
        name: 'BatchEntryIdsNotDistinct',
        $metadata: { httpStatusCode: 400 },
      });
    }
    if (entries.length === 0 || entries.length > 10) throw new Error(`${entries.length} entries`);
    const answers = entries.map((entry) => ({ Id: entry.Id, failure: each(entry) }));
    return {
      Successful: answers.filter(({ failure }) => !failure).map(({ Id }) => ({ Id })),
      Failed: answers.flatMap(({ Id, failure }) => (failure ? [{ Id, ...failure }] : [])),
    };
  }

  let moment = { at: 0, requests: 0 };
  /** Virtual time stands still while anybody goes on asking: a loop without a pause would never end. */
  function refuseHotLoop(): void {
    if (moment.at !== clock.now()) moment = { at: clock.now(), requests: 0 };
    if (++moment.requests > 1_000) throw new Error('1,000 requests in one moment');
  }

  const through =
    <Request, Answer>(name: keyof SqsCalls, run: (request: Request, options?: SqsRequestOptions) => Answer | Promise<Answer>) =>
    (request: Request, options?: SqsRequestOptions): Promise<Answer> => {
      refuseHotLoop();
      model.log.push({ name, request });
      return model.intercept(name, request, async () => run(request, options));
    };

  const model: SqsModel = {
    log: [],
    intercept: (_name, _request, run) => run(),
    createQueue(name, attributes = {}) {
      const url = `https://sqs.eu-west-1.amazonaws.com/000000000000/${name}`;
      queues.set(url, {
        url,
        fifo: name.endsWith('.fifo'),
        kept: [],
        handles: new Map(),
        deduplicated: new Map(),
        attempts: new Map(),
        attributes: { VisibilityTimeout: '30', MessageRetentionPeriod: '345600', QueueArn: arnOf(name), ...attributes },
      });
      return url;
    },
    put: (queueUrl, body, more = {}) => send(queueOf(queueUrl), { MessageBody: body, ...more }),
    messages: (queueUrl) => queueOf(queueUrl).kept,
    redrive(fromUrl, toUrl) {
      for (const { body, attributes, group } of queueOf(fromUrl).kept.splice(0)) {
        send(queueOf(toUrl), {
          MessageBody: body,
          ...(attributes && { MessageAttributes: attributes }),
          ...(group !== undefined && { MessageGroupId: group }),
        });
      }
    },
    receiveMessage: through('receiveMessage', async (request, options) => {
      const queue = queueOf(request.QueueUrl);
      const until = clock.now() + request.WaitTimeSeconds * 1_000;
      for (;;) {
        const Messages = handOut(queue, request);
        if (Messages.length > 0) return { Messages };
        if (clock.now() >= until) return {};
        await waitFor(queue, until, options?.abortSignal);
      }
    }),
    deleteMessageBatch: through('deleteMessageBatch', ({ QueueUrl, Entries }) =>
      batch(Entries, (entry) => remove(queueOf(QueueUrl), entry.ReceiptHandle)),
    ),
    changeMessageVisibilityBatch: through('changeMessageVisibilityBatch', ({ QueueUrl, Entries }) =>
      batch(Entries, (entry) => change(queueOf(QueueUrl), entry.ReceiptHandle, entry.VisibilityTimeout)),
    ),
    sendMessageBatch: through('sendMessageBatch', ({ QueueUrl, Entries }) => {
      const queue = queueOf(QueueUrl);
      const answer = batch(Entries, () => undefined);
      const ids = new Map(Entries.map((entry) => [entry.Id, send(queue, entry)]));
      return { Failed: answer.Failed, Successful: answer.Successful!.map(({ Id }) => ({ Id, MessageId: ids.get(Id!) })) };
    }),
    getQueueAttributes: through('getQueueAttributes', ({ QueueUrl }) => ({ Attributes: queueOf(QueueUrl).attributes })),
    getQueueUrl: through('getQueueUrl', ({ QueueName }) => ({
      QueueUrl: queueOf(`https://sqs.eu-west-1.amazonaws.com/000000000000/${QueueName}`).url,
    })),
  };
  return model;
}
