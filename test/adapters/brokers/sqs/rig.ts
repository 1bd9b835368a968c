import { afterEach, expect } from 'vitest';
import { type SqsPoller, type SqsPollerOptions, sqsPoller } from '../../../../adapters/brokers/sqs/index.ts';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { createReceiver, messageId, type Receiver, type Verdict } from '../../../../src/index.ts';
import type { Delivery, Source } from '../../../../src/message.ts';
import { type VirtualWorld, virtualWorld } from '../../../../src/testing/virtual-world.ts';
import { type SqsModel, sqsModel } from './model.ts';

export interface Rig {
  readonly world: VirtualWorld;
  readonly model: SqsModel;
  readonly queueUrl: string;
  readonly deadUrl: string;
  readonly receiver: Receiver;
  readonly poller: SqsPoller;
  readonly errors: { error: unknown; during: string }[];
  /** The requests of one kind, oldest first. */
  requests(name: keyof SqsModel): any[];
  /** Starts the poller and lets it come to rest. */
  start(): Promise<void>;
}

export interface RigOptions {
  readonly fifo?: boolean;
  readonly attributes?: Record<string, string>;
  /** Stands in for a receiver around `handler`. */
  readonly receiver?: (world: VirtualWorld) => Receiver;
  readonly receiverOptions?: Record<string, unknown>;
  readonly poller?: Partial<SqsPollerOptions>;
  /** The queue has no dead-letter queue. */
  readonly noRedrive?: boolean;
}

const running: Rig[] = [];

/** A poller on a modelled queue in virtual time, with the real receiver on a memory store unless another one is given. */
export function rig(handler: (payload: any, context: any) => unknown, options: RigOptions = {}): Rig {
  const world = virtualWorld();
  const model = sqsModel(world.clock);
  const suffix = options.fifo ? '.fifo' : '';
  const deadUrl = model.createQueue(`dead${suffix}`);
  const redrive = { deadLetterTargetArn: `arn:aws:sqs:eu-west-1:000000000000:dead${suffix}`, maxReceiveCount: 5 };
  const queueUrl = model.createQueue(`work${suffix}`, {
    ...(!options.noRedrive && { RedrivePolicy: JSON.stringify(redrive) }),
    ...options.attributes,
  });
  const receiver =
    options.receiver?.(world) ??
    createReceiver(
      { scope: 'test', key: messageId(), store: memoryStore({ now: world.clock.now }), world, leaseMs: 20_000, ...options.receiverOptions },
      handler,
    );
  const errors: Rig['errors'] = [];
  const onError = (error: unknown, during: string) => void errors.push({ error, during });
  const poller = sqsPoller({ client: model, queueUrl, receiver, onError, ...options.poller });
  const made: Rig = {
    world,
    model,
    queueUrl,
    deadUrl,
    receiver,
    poller,
    errors,
    requests: (name) => model.log.filter((each) => each.name === name).map(({ request }) => request),
    async start() {
      running.push(made);
      const run = poller.run();
      run.catch(() => {});
      // Deletes and changes of visibility linger for 5 ms, to go together.
      await world.advance(10);
    },
  };
  return made;
}

/** After each test: what was started is stopped, and has left no timer behind. */
afterEach(async () => {
  for (const { poller, world } of running.splice(0)) {
    const stopped = poller.stop();
    await world.advance(30_000);
    await stopped;
    expect(world.timers).toBe(0);
  }
});

/** A receiver that gives the verdicts that `script` tells, as a test of the adapter alone. */
export function scripted(
  script: (delivery: Delivery, source: Source) => Verdict | Promise<Verdict>,
  world: VirtualWorld,
  more: Partial<Receiver> = {},
): Receiver {
  let stopped = false;
  return {
    guarantee: 'leased',
    scope: 'scripted',
    leaseMs: 20_000,
    retentionMs: 1_209_600_000,
    world,
    requireRetention() {},
    keyOf: ({ id }) => id,
    ready: async (signal) => !stopped && !signal?.aborted,
    stop: async () => ((stopped = true), { abandoned: 0 }),
    process: (deliveries, source = {}) =>
      Promise.all(
        deliveries.map(async (delivery) => {
          const verdict = await script(delivery, source as Source);
          source.settled?.(delivery, verdict);
          return verdict;
        }),
      ),
    ...more,
  };
}

export const ack: Verdict = { action: 'ack', outcome: 'completed' };
export const retryAfter = (afterMs: number): Verdict => ({ action: 'retry', reason: 'failed', afterMs });

/** Bodies that are in a queue, hidden ones included. */
export const bodies = (model: SqsModel, url: string): string[] => model.messages(url).map(({ body }) => body);

/** What SQS answers with status 200 to entries that it could not serve. */
export const internalError = (request: { Entries: { Id: string }[] }, refused: (entry: any) => boolean) => ({
  Successful: request.Entries.filter((entry) => !refused(entry)).map(({ Id }) => ({ Id })),
  Failed: request.Entries.filter(refused).map(({ Id }) => ({ Id, Code: 'InternalError', SenderFault: false })),
});
