import { type Clock, sleep } from '../../../../src/clock.ts';
import { ClusterModel } from './model-cluster.ts';
import { type ConsumerSettings, type KafkajsConsumer, kafkajsConsumer, type RunSettings, type Wire } from './model-consumer.ts';
import type { GroupModel } from './model-group.ts';

export type { ConsumerSettings, RunSettings } from './model-consumer.ts';

/** A Kafka broker and kafkajs's consumer in virtual time, without a network between them. The simulator puts one there. */
export interface KafkaModel {
  createTopic(topic: string, partitions?: number): void;
  /** Deletes a topic and makes it again: its offsets begin at 0. */
  recreateTopic(topic: string): void;
  produce(topic: string, messages: readonly { id: string; key?: string | null; value?: string; partition?: number }[]): void;
  /** A record that consumers don't see, and that takes an offset: of a transaction. */
  produceControl(topic: string, partition: number): void;
  consumer(options: ConsumerSettings): ConsumerModel;
  group(groupId: string): GroupModel;
}

export interface ConsumerModel extends KafkajsConsumer {
  run(settings: RunSettings): Promise<void>;
  /** The process stops, SIGSTOP: nothing of kafkajs goes on until it wakes. */
  freeze(): void;
  wake(): void;
  /** Every request, in order. */
  readonly log: { readonly name: string; readonly offset?: number }[];
  /** Stands before every request: may throw, or wait. */
  intercept: (name: string) => Promise<void>;
}

export function kafkaModel(clock: Clock): KafkaModel {
  const cluster = new ClusterModel(clock);

  function consumer(settings: ConsumerSettings): ConsumerModel {
    let frozen: { done: Promise<void>; open: () => void } | undefined;
    let moment = { at: 0, requests: 0 };

    /** Virtual time stands still while anybody goes on asking: a loop without a pause would never end. */
    function refuseHotLoop(): void {
      if (moment.at !== clock.now()) moment = { at: clock.now(), requests: 0 };
      if (++moment.requests > 1_000) throw new TypeError('1,000 requests in one moment');
    }

    const wire: Wire = {
      now: clock.now,
      async sleep(ms) {
        await sleep(clock, ms);
        await frozen?.done;
      },
      async call(name, run, offset) {
        await frozen?.done;
        refuseHotLoop();
        model.log.push(offset === undefined ? { name } : { name, offset });
        await model.intercept(name);
        const answer = await run();
        await frozen?.done;
        model.emit('consumer.network.request', { apiName: name });
        return answer;
      },
    };

    const model: ConsumerModel = Object.assign(kafkajsConsumer(cluster, wire, settings), {
      log: [],
      intercept: async () => {},
      freeze() {
        let open = () => {};
        const done = new Promise<void>((resolve) => {
          open = resolve;
        });
        frozen = { done, open };
      },
      wake() {
        frozen?.open();
        frozen = undefined;
      },
    });
    return model;
  }

  return {
    group: (groupId) => cluster.group(groupId),
    consumer,
    createTopic: (topic, partitions) => cluster.createTopic(topic, partitions),
    recreateTopic: (topic) => cluster.createTopic(topic, cluster.partitions(topic)!.length),
    produce(topic, messages) {
      for (const { id, key = id, value = JSON.stringify({ id }), partition = 0 } of messages) {
        cluster.append(`${topic}/${partition}`, {
          key: key === null ? null : Buffer.from(key),
          value: Buffer.from(value),
          headers: { 'message-id': Buffer.from(id) },
        });
      }
      cluster.wake();
    },
    produceControl(topic, partition) {
      cluster.append(`${topic}/${partition}`, { key: null, value: null, isControl: true });
      cluster.wake();
    },
  };
}
