import { endsWithin } from '../../../src/clock.ts';
import { expectNumber, ReceiverError } from '../../../src/errors.ts';
import { sqsCalls } from './client.ts';
import { handling } from './handle.ts';
import type { Link, Report } from './link.ts';
import { checkOptions, type SqsPollerOptions } from './options.ts';
import { type Receiving, receive } from './receive.ts';
import { settling } from './settle.ts';
import { slots } from './slots.ts';
import { prepare } from './start.ts';

/** Reads one SQS queue for a receiver, and tells SQS what becomes of each message. */
export interface SqsPoller {
  /**
   * Reads until `signal` is aborted, `stop` is called or the receiver is stopped; then stops as `stop` does. Errors of SQS go to `onError`
   * and are tried again.
   * @throws ReceiverError at start only: `broker` if the queue can't be read or its settings make the promise impossible,
   *   `retention-too-short` if the store would forget messages that SQS still delivers, `stopped` if it has been run before.
   */
  run(signal?: AbortSignal): Promise<void>;
  /**
   * Receives nothing more, stops the receiver (unless `stopReceiver` is false), tells SQS what is left to tell, for 5 s at most, and gives
   * back what has not been started. `graceMs` is for running handlers, 10,000 by default; `abandoned` counts those that did not end.
   *
   * A message that SQS hands out in the very moment in which a waiting receive is cancelled stays hidden until its visibility ends.
   */
  stop(options?: { readonly graceMs?: number }): Promise<{ readonly abandoned: number }>;
}

/** For what is left to tell SQS after the last handler has ended. */
const flushMs = 5_000;

/** Makes a poller of one queue, standard or FIFO. @throws ReceiverError `invalid-option` */
export function sqsPoller(options: SqsPollerOptions): SqsPoller {
  const checked = checkOptions(options);
  const { receiver, queueUrl, requestMs } = checked;
  const { world } = receiver;
  const report: Report = (error, during) => {
    try {
      checked.onError(error, during);
    } catch {
      // A broken logger must not stop the queue.
    }
  };
  const calls = sqsCalls(checked.client, [
    'receiveMessage',
    'deleteMessageBatch',
    'changeMessageVisibilityBatch',
    'sendMessageBatch',
    'getQueueAttributes',
    'getQueueUrl',
  ]);
  const halt = new AbortController();
  const over = new AbortController();
  const link: Link = { calls, queueUrl, world, report, requestMs, over: over.signal };
  const places = slots(checked.maxInFlight);
  let polling: Promise<unknown> | undefined;
  let stopping: Promise<{ abandoned: number }> | undefined;

  async function poll(): Promise<void> {
    const how = await prepare(link, checked, halt.signal);
    if (!how) return;
    // Deletes grow in step with receives: each poll has its own gatherers.
    await Promise.all(Array.from({ length: checked.polls }, () => receiveAll(how)));
  }

  async function receiveAll(how: Receiving): Promise<void> {
    const handle = handling(link, how, settling(link, checked.deadLetter, how.visibilityMs), places);
    for (let limit = await places.take(halt.signal); limit > 0; limit = await places.take(halt.signal)) {
      const deliveries = await receive(link, how, limit, halt.signal);
      places.give(limit - (deliveries?.length ?? 0));
      if (!deliveries) return;
      if (deliveries.length > 0) void handle(deliveries);
    }
  }

  async function halted(graceMs: number): Promise<{ abandoned: number }> {
    halt.abort();
    await polling?.catch(() => {});
    const stopped = checked.stopReceiver ? await receiver.stop({ graceMs }) : undefined;
    const idle = await idleWithin(stopped ? flushMs : graceMs);
    // Only with a receiver that goes on: what is in flight then is running or waiting there.
    const abandoned = stopped ? stopped.abandoned : idle ? 0 : places.taken();
    over.abort();
    return { abandoned };
  }

  async function idleWithin(limitMs: number): Promise<boolean> {
    await endsWithin(world.clock, limitMs, places.idle());
    return places.taken() === 0;
  }

  const stop: SqsPoller['stop'] = async ({ graceMs = 10_000 } = {}) => {
    expectNumber('graceMs', graceMs, { atLeast: 0 });
    stopping ??= halted(graceMs);
    return stopping;
  };

  return {
    async run(signal) {
      if (polling || stopping) throw new ReceiverError('stopped', 'Expected a poller that has not been run or stopped, got one that has');
      const onAbort = () => void stop();
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted) halt.abort();
      polling = poll();
      try {
        await polling;
        await stop();
      } finally {
        signal?.removeEventListener('abort', onAbort);
      }
    },
    stop,
  };
}
