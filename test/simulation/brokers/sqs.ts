import type { SqsFailure, SqsMessage } from '../../../adapters/brokers/sqs/client.ts';
import { type SqsCalls, sqsPoller } from '../../../adapters/brokers/sqs/index.ts';
import type { Kernel } from '../../../src/testing/virtual/kernel.ts';
import { type Kept, sqsModel } from '../../adapters/brokers/sqs/model.ts';
import type { SimBroker, Whereabouts } from '../broker.ts';
import type { Chance, Site, Stream } from '../chance.ts';
import type { Link } from '../link.ts';
import { Server } from '../link.ts';
import type { Scenario } from '../scenario.ts';
import type { Watch } from '../watch.ts';
import { epoch, type Worker } from '../worker.ts';

/** An SQS queue, standard or FIFO, with its dead-letter queue; read by the real poller. */
export function sqsBroker(kernel: Kernel, chance: Chance, scenario: Scenario, watch: Watch): SimBroker {
  const fifo = scenario.broker === 'fifo';
  const suffix = fifo ? '.fifo' : '';
  const model = sqsModel({ now: () => kernel.now, wall: () => epoch + kernel.now, after: (ms, task) => kernel.after(ms, task) });
  // The log of requests is for tests that read it.
  model.log.push = keepNothing;
  const deadUrl = model.createQueue(`dead${suffix}`);
  const redrive = { deadLetterTargetArn: `arn:aws:sqs:eu-west-1:000000000000:dead${suffix}`, maxReceiveCount: scenario.maxReceives };
  const queueUrl = model.createQueue(`work${suffix}`, {
    MessageRetentionPeriod: String(Math.min(345_600, scenario.retentionMs / 1_000)),
    ...(scenario.redrive && { RedrivePolicy: JSON.stringify(redrive) }),
  });
  const queue = model.messages(queueUrl) as Kept[];
  const dead = model.messages(deadUrl);
  const shuffle = chance.stream('queue order');
  const queueFaults = chance.site('queue');
  const messages: Whereabouts[] = [];
  const byId = new Map<string, Whereabouts>();
  /** By worker and message: how often it was sent to the dead-letter queue, and is still to be deleted here. */
  const putAside = new Map<string, number>();

  const broker: SimBroker = {
    server: new Server('sqs'),
    ordered: fifo,
    messages,
    find: (messageId) => byId.get(messageId)!,
    onAck: () => {},
    quiet() {
      if (queue.length > 0) return false;
      moved();
      return true;
    },
    send(sent) {
      const messageId = model.put(queueUrl, JSON.stringify({ id: sent.key, payload: sent.payload }), {
        ...(sent.kind !== 'malformed' && { MessageAttributes: { id: { DataType: 'String', StringValue: sent.key } } }),
        ...(fifo && { MessageGroupId: sent.group, MessageDeduplicationId: `dedup-${sent.name}` }),
      });
      const message: Whereabouts = {
        sent,
        messageId,
        order: messages.length,
        sentAt: kernel.now,
        state: 'queued',
        redriven: false,
        deliveries: 0,
        firsts: 0,
      };
      messages.push(message);
      if (sent.hiddenMs > 0) queue.at(-1)!.visibleAt = kernel.now + sent.hiddenMs;
      byId.set(messageId, message);
      watch.tell(
        'producer',
        () => `sends ${sent.name} (${sent.kind}, key ${sent.key}${fifo ? `, group ${sent.group}` : ''}) as ${messageId}`,
      );
    },
    consumer(worker, link, receiver) {
      const poller = sqsPoller({
        client: clientOf(worker, link),
        queueUrl,
        receiver,
        visibilityMs: scenario.visibilityMs,
        waitMs: scenario.pollMs,
        polls: scenario.polls,
        maxInFlight: scenario.maxInFlight,
        deadLetter: scenario.redrive ? 'redrive' : { queueUrl: deadUrl },
        onError: (error, during) => watch.tell(worker.name, () => `${during}: ${String(error)}`),
      });
      return { run: () => poller.run(), stop: (options) => poller.stop(options) };
    },
  };

  function clientOf(worker: Worker, link: Link): SqsCalls {
    const noticing = chance.stream(`${worker.name} broken connections`);
    const own = chance.site(`${worker.name} queue`);
    return {
      receiveMessage: (request, options) =>
        link.call('receive', async () => {
          const connection = connectionOf(worker, noticing, options?.abortSignal);
          if (!fifo) disorder(queue, shuffle);
          try {
            const answer = await model.receiveMessage(request, { abortSignal: connection.signal });
            for (const message of answer.Messages ?? []) received(worker, message);
            moved();
            return answer;
          } finally {
            connection.end();
          }
        }),
      deleteMessageBatch: (request) =>
        link.call('delete', () => batch(worker, own, false, request, (entries) => removed(worker, { ...request, Entries: entries }))),
      changeMessageVisibilityBatch: (request) =>
        link.call('visibility', () =>
          batch(worker, own, true, request, async (entries) => {
            const answer = await model.changeMessageVisibilityBatch({ ...request, Entries: entries });
            watch.tell(
              'sqs',
              () =>
                `${worker.name} hides ${entries.map((e) => `${idOf(e)} for ${e.VisibilityTimeout} s`).join(', ')}${refusals(answer.Failed)}`,
            );
            watch.count('staleHandles', answer.Failed?.length ?? 0);
            return answer;
          }),
        ),
      sendMessageBatch: (request) =>
        link.call('dead-letter', async () => {
          const answer = await model.sendMessageBatch(request);
          for (const { MessageAttributes: attributes } of request.Entries) {
            const message = broker.find(attributes!['dead-letter-id']!.StringValue!);
            const reason = attributes!['dead-letter-reason']!.StringValue!;
            watch.tell('sqs', () => `${worker.name} puts ${message.sent.name} into the dead-letter queue: ${reason}`);
            if (message.state === 'queued') message.state = 'dead-lettered';
            const id = `${worker.name} ${message.messageId}`;
            putAside.set(id, (putAside.get(id) ?? 0) + 1);
          }
          return answer;
        }),
      getQueueAttributes: (request) => link.call('attributes', () => model.getQueueAttributes(request)),
      getQueueUrl: (request) => link.call('url', () => model.getQueueUrl(request)),
    };
  }

  function received(worker: Worker, { MessageId, Attributes }: SqsMessage): void {
    const message = broker.find(MessageId!);
    message.deliveries++;
    if (Attributes!['ApproximateReceiveCount'] === '1') message.firsts++;
    else watch.count('redeliveries');
    watch.tell('sqs', () => `hands ${message.sent.name} to ${worker.name}, receive ${Attributes!['ApproximateReceiveCount']}`);
    // A server that was down keeps its own copy of a message, and hands it out in the same breath or after the delete.
    if (fifo) return;
    const fault = queueFaults.draw(scenario.odds.queue, kernel.now);
    if (fault?.kind !== 'copy') return;
    watch.count('copies');
    watch.tell('sqs', () => `has a second copy of ${message.sent.name}`, true);
    const kept = queue.find(({ id }) => id === MessageId)!;
    queue.push({
      ...kept,
      receives: 0,
      handle: undefined,
      visibleAt: kernel.now + (fault.size < 0.3 ? 0 : fault.size * scenario.visibilityMs * 2),
    });
  }

  async function removed(worker: Worker, request: Parameters<SqsCalls['deleteMessageBatch']>[0]) {
    const before = request.Entries.map((entry) => queue.some(({ handle }) => handle === entry.ReceiptHandle));
    const answer = await model.deleteMessageBatch(request);
    watch.tell('sqs', () => `${worker.name} deletes ${request.Entries.map(idOf).join(', ')}${refusals(answer.Failed)}`);
    watch.count('staleHandles', answer.Failed?.length ?? 0);
    request.Entries.forEach((entry, i) => {
      if (!before[i] || queue.some(({ handle }) => handle === entry.ReceiptHandle)) return;
      const message = broker.find(idOf(entry));
      // What has been put aside is not acked by its delete.
      const sent = putAside.get(`${worker.name} ${message.messageId}`) ?? 0;
      if (sent > 0) return void putAside.set(`${worker.name} ${message.messageId}`, sent - 1);
      if (message.state === 'queued') message.state = 'acked';
      broker.onAck(message);
    });
    return answer;
  }

  /** Batch requests fail in parts: entries that are refused, and deletes that are answered and not done. */
  async function batch<
    Entry extends { Id: string },
    Answer extends { Successful?: readonly { Id?: string | undefined }[] | undefined; Failed?: readonly SqsFailure[] | undefined },
  >(
    worker: Worker,
    site: Site,
    isExcuse: boolean,
    request: { readonly Entries: readonly Entry[] },
    run: (entries: Entry[]) => Promise<Answer>,
  ): Promise<Answer> {
    const fault = site.draw(scenario.odds.queue, kernel.now);
    const keeps = fault?.kind === 'keep' && !fifo;
    if (!keeps && fault?.kind !== 'partial') return run([...request.Entries]);
    worker.trouble(isExcuse);
    const first = Math.floor(fault!.size * request.Entries.length);
    const left = request.Entries.filter((_, i) => i !== first);
    const { Id } = request.Entries[first]!;
    watch.tell('sqs', () => `${keeps ? 'answers and does not do' : 'refuses'} entry ${Id} of ${worker.name}`, true);
    if (keeps) watch.count('keptDeletes');
    const answer = left.length > 0 ? await run(left) : ({ Successful: [], Failed: [] } as unknown as Answer);
    return keeps
      ? { ...answer, Successful: [...answer.Successful!, { Id }] }
      : { ...answer, Failed: [...answer.Failed!, { Id, Code: 'InternalError', SenderFault: false }] };
  }

  /** A client that goes away: the service sees that soon, or hands out messages to nobody. */
  function connectionOf(worker: Worker, noticing: Stream, signal: AbortSignal | undefined) {
    const server = new Noticed();
    const gone = () => {
      if (noticing.happens(0.7)) kernel.after(noticing.next() * 20, () => server.abort(new Error('The client has gone')));
    };
    worker.onCrash.add(gone);
    signal?.addEventListener('abort', gone, { once: true });
    if (signal?.aborted) gone();
    return {
      signal: server as unknown as AbortSignal,
      end() {
        worker.onCrash.delete(gone);
        signal?.removeEventListener('abort', gone);
      },
    };
  }

  /** Messages that the queue has moved away by itself. */
  function moved(): void {
    for (const { id } of dead) {
      const message = byId.get(id);
      if (message?.state !== 'queued') continue;
      message.state = 'dead-lettered';
      message.redriven = true;
      watch.count('redriven');
      watch.tell('sqs', () => `moves ${message.sent.name} to the dead-letter queue: received ${message.deliveries} times`);
    }
  }

  return broker;
}

const keepNothing = () => 0;

/** As much of an AbortSignal as the model of the queue looks at. Each receive has one, and a real one costs as much as the receive itself. */
class Noticed {
  reason: unknown;
  readonly #listeners: (() => void)[] = [];

  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.push(listener);
  }

  abort(reason: unknown): void {
    if (this.reason) return;
    this.reason = reason;
    for (const tell of this.#listeners) tell();
  }
}

const idOf = ({ ReceiptHandle }: { readonly ReceiptHandle: string }): string => ReceiptHandle.slice(0, ReceiptHandle.indexOf('/'));

function refusals(failed: readonly SqsFailure[] | undefined): string {
  return failed?.length ? `; refused: ${failed.map(({ Id, Message, Code }) => `${Id} ${Message ?? Code}`).join(', ')}` : '';
}

/** A standard queue has no order. */
function disorder(list: Kept[], stream: Stream): void {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(stream.next() * (i + 1));
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
}
