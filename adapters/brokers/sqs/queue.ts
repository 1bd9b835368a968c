import { sleep } from '../../../src/clock.ts';
import { describeError, ReceiverError } from '../../../src/errors.ts';
import { isPassing } from './failures.ts';
import { backoffMs, type Link, within } from './link.ts';

/** What the adapter has to know of a queue (GetQueueAttributes). */
export interface QueueFacts {
  readonly fifo: boolean;
  readonly visibilityMs: number;
  readonly retentionMs: number;
  readonly redrive: { readonly targetArn: string; readonly maxReceiveCount: number } | undefined;
}

/** FIFO queues, and only they, are named so. A MessageGroupId does not tell: standard queues take one for fair queues. */
export function isFifo(queueUrl: string): boolean {
  return queueUrl.endsWith('.fifo');
}

/**
 * Reads a queue's settings. While the service can't be reached it goes on trying, and returns undefined if `stop` is aborted meanwhile.
 * @throws ReceiverError `broker` if the queue does not exist, or may not be read, or answers nonsense.
 */
export async function readQueue(link: Link, queueUrl: string, stop: AbortSignal): Promise<QueueFacts | undefined> {
  const { calls, world } = link;
  for (let failures = 0; !stop.aborted; failures++) {
    try {
      const { Attributes: attributes = {} } = await within(world.clock, link.requestMs, stop, (abortSignal) =>
        calls.getQueueAttributes({ QueueUrl: queueUrl, AttributeNames: ['All'] }, { abortSignal }),
      );
      return {
        fifo: isFifo(queueUrl),
        visibilityMs: secondsOf(attributes, 'VisibilityTimeout', queueUrl),
        // ElasticMQ has no such attribute; SQS always tells it.
        retentionMs: secondsOf({ MessageRetentionPeriod: '345600', ...attributes }, 'MessageRetentionPeriod', queueUrl),
        redrive: redriveOf(attributes['RedrivePolicy'], queueUrl),
      };
    } catch (error) {
      if (stop.aborted) break;
      if (error instanceof ReceiverError) throw error;
      if (!isPassing(error)) {
        throw new ReceiverError(
          'broker',
          `Expected to read the attributes of ${queueUrl} (sqs:GetQueueAttributes), got ${describeError(error)}`,
          {
            cause: error,
          },
        );
      }
      link.report(error, 'start');
      await sleep(world.clock, backoffMs(failures, 20_000, world), stop);
    }
  }
  return undefined;
}

/**
 * The longest time after which SQS can still deliver a message again that was handled already. Its last allowed receive may have been
 * the successful one, with its delete lost: then it goes to the dead-letter queue, and a redrive from there is a new message with a new
 * retention. A dead-letter queue keeps the time of sending of a standard queue's message, and starts anew for a FIFO queue's.
 */
export function horizonOf(queue: QueueFacts, deadLetterRetentionMs: number | undefined): { readonly ms: number; readonly where: string } {
  const source = queue.retentionMs;
  if (!queue.redrive) return { ms: source, where: `MessageRetentionPeriod ${days(source)}` };
  const dead = deadLetterRetentionMs ?? source;
  const before = queue.fifo ? source : 0;
  return {
    ms: before + dead + source,
    where: `${before > 0 ? `MessageRetentionPeriod ${days(before)} before the dead-letter queue, ` : ''}${days(dead)} in it, ${days(source)} after a redrive`,
  };
}

/**
 * MessageRetentionPeriod of the dead-letter queue that an ARN names. Undefined, and told, if it can't be read: its owner need not have
 * permitted it.
 */
export async function deadLetterRetentionMs(link: Link, targetArn: string, stop: AbortSignal): Promise<number | undefined> {
  const [, , , , account, name] = targetArn.split(':');
  try {
    if (!name || account === undefined) throw new ReceiverError('broker', `Expected RedrivePolicy to name a queue, got ${targetArn}`);
    const { QueueUrl: url } = await within(link.world.clock, link.requestMs, stop, (abortSignal) =>
      link.calls.getQueueUrl({ QueueName: name, QueueOwnerAWSAccountId: account }, { abortSignal }),
    );
    if (!url) throw new ReceiverError('broker', `Expected a QueueUrl for ${targetArn}, got none`);
    return (await readQueue(link, url, stop))?.retentionMs;
  } catch (cause) {
    const text = `Could not read how long ${targetArn} keeps messages (sqs:GetQueueUrl, sqs:GetQueueAttributes), and take the source queue's own time for it`;
    if (!stop.aborted) link.report(new ReceiverError('broker', `${text}: ${describeError(cause)}`, { cause }), 'start');
    return undefined;
  }
}

function secondsOf(attributes: Readonly<Record<string, string | undefined>>, name: string, queueUrl: string): number {
  const text = attributes[name];
  if (text === undefined || !/^\d{1,9}$/.test(text)) {
    throw new ReceiverError('broker', `Expected ${queueUrl} to have ${name} in seconds, got ${JSON.stringify(text)}`);
  }
  return Number(text) * 1_000;
}

function redriveOf(policy: string | undefined, queueUrl: string): QueueFacts['redrive'] {
  if (!policy) return undefined;
  try {
    const { deadLetterTargetArn, maxReceiveCount } = JSON.parse(policy) as { deadLetterTargetArn?: unknown; maxReceiveCount?: unknown };
    const count = Number(maxReceiveCount);
    if (typeof deadLetterTargetArn === 'string' && Number.isSafeInteger(count))
      return { targetArn: deadLetterTargetArn, maxReceiveCount: count };
  } catch {
    // Told below.
  }
  throw new ReceiverError('broker', `Expected RedrivePolicy of ${queueUrl} to name a queue and a maxReceiveCount, got ${policy}`);
}

function days(ms: number): string {
  return `${Math.round(ms / 8_640_000) / 10} d`;
}
