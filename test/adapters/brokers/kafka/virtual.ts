import { afterEach, expect } from 'vitest';
import { type KafkaAdapter, type KafkaOptions, kafka } from '../../../../adapters/brokers/kafka/index.ts';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { createReceiver, header, type Receiver } from '../../../../src/index.ts';
import { type VirtualWorld, virtualWorld } from '../../../../src/testing/virtual-world.ts';
import { type ConsumerModel, type ConsumerSettings, type KafkaModel, kafkaModel } from './model.ts';

export interface Worker {
  readonly consumer: ConsumerModel;
  readonly adapter: KafkaAdapter;
  readonly receiver: Receiver;
  readonly errors: { error: any; during: string }[];
  stop(): Promise<void>;
}

export interface WorkerOptions {
  readonly consumer?: Partial<ConsumerSettings>;
  readonly receiver?: object;
  readonly kafka?: Partial<KafkaOptions>;
  readonly start?: (consumer: ConsumerModel, adapter: KafkaAdapter) => Promise<void>;
}

const made: { world: VirtualWorld; workers: Worker[] }[] = [];

/** A modelled broker in virtual time, with the topic `t`. */
export function virtual({ partitions = 1 }: { partitions?: number } = {}) {
  const world = virtualWorld();
  const model: KafkaModel = kafkaModel(world.clock);
  model.createTopic('t', partitions);
  const store = memoryStore({ now: world.clock.now });
  const workers: Worker[] = [];
  made.push({ world, workers });

  /** A consumer of the group `g`, with the real adapter and the real receiver, on one memory store unless another is given. */
  async function worker(handler: (payload: any, context: any) => unknown, options: WorkerOptions = {}): Promise<Worker> {
    const receiver = createReceiver(
      { scope: 'test', key: header('message-id'), store, world, leaseMs: 6_000, ...options.receiver } as {
        scope: string;
        key: ReturnType<typeof header>;
        store: typeof store;
      },
      handler,
    );
    const consumer = model.consumer({ groupId: 'g', topics: ['t'], ...options.consumer });
    const errors: Worker['errors'] = [];
    const adapter = kafka(receiver, {
      consumer,
      deadLetter: 'drop',
      onError: (error, during) => void errors.push({ error, during }),
      ...options.kafka,
    });
    const start = options.start ?? ((to, of) => to.run(of.run()));
    await start(consumer, adapter);
    await world.settle();
    const stop = async () => {
      consumer.wake();
      const stopped = adapter.stop({ graceMs: 1_000 }).then(() => consumer.stop());
      await world.advance(120_000);
      await stopped;
    };
    const one: Worker = { consumer, adapter, receiver, errors, stop };
    workers.push(one);
    return one;
  }

  return { world, model, store, worker, committed: (partition = 0) => model.group('g').committed(`t/${partition}`) };
}

/** After each test: what was started is stopped, and has left no timer behind. */
afterEach(async () => {
  for (const { world, workers } of made.splice(0)) {
    for (const { stop } of workers) await stop();
    expect(world.timers).toBe(0);
  }
});
