import type { KafkaBatchPayload, KafkaConsumer, KafkaMessage, KafkaMessagePayload } from '../../../../adapters/brokers/kafka/client.ts';
import { type Clock, sleep } from '../../../../src/clock.ts';
import { type GroupModel, groupModel } from './model-group.ts';

/**
 * A small model of one Kafka broker and of kafkajs's consumer in virtual time. Its rules are those read and measured in kafkajs 2.2.4 and Kafka 4.3
 * (facts/kafka.md, 1.4, 1.5): one batch at a time, a heartbeat after each, the next fetch behind what was resolved; a rebalance waits for the
 * batch that is being handled; an expelled member learns it from its next request, and joins anew; errors that are no use to try again
 * stop the consumer for good. Offsets are committed under a member and a generation, and refused under others.
 */
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

export interface ConsumerSettings {
  readonly groupId: string;
  readonly topics: readonly string[];
  readonly sessionTimeout?: number;
  readonly rebalanceTimeout?: number;
  readonly heartbeatInterval?: number;
  readonly maxWaitTimeInMs?: number;
  /** Messages in a batch at most. */
  readonly maxBatch?: number;
}

export interface RunSettings {
  readonly autoCommit?: boolean;
  readonly eachBatchAutoResolve?: boolean;
  readonly eachBatch?: (payload: KafkaBatchPayload) => Promise<void>;
  readonly eachMessage?: (payload: KafkaMessagePayload) => Promise<void>;
}

export interface ConsumerModel extends KafkaConsumer {
  run(settings: RunSettings): Promise<void>;
  stop(): Promise<void>;
  /** The process stops, SIGSTOP: nothing of kafkajs goes on until it wakes. */
  freeze(): void;
  wake(): void;
  /** Every request, in order. */
  readonly log: { readonly name: string; readonly offset?: number }[];
  /** Stands before every request: may throw, or wait. */
  intercept: (name: string) => Promise<void>;
  readonly crashes: { error: Error; restart: boolean }[];
  readonly paused: ReadonlySet<string>;
}

type Record_ = KafkaMessage & { readonly isControl: boolean };

export function kafkaModel(clock: Clock): KafkaModel {
  const logs = new Map<string, Record_[][]>();
  const groups = new Map<string, GroupModel>();
  const arrived: (() => void)[] = [];

  const group = (groupId: string) => {
    const known =
      groups.get(groupId) ?? groupModel(clock, (topics) => topics.flatMap((topic) => logs.get(topic)!.map((_, i) => `${topic}/${i}`)));
    groups.set(groupId, known);
    return known;
  };

  function append(topic: string, partition: number, record: Omit<Record_, 'offset' | 'timestamp'>): void {
    const log = logs.get(topic)![partition]!;
    log.push({ ...record, offset: String(log.length), timestamp: String(clock.wall()) });
    for (const wake of arrived.splice(0)) wake();
  }

  function consumer(settings: ConsumerSettings): ConsumerModel {
    const {
      groupId,
      topics,
      sessionTimeout = 30_000,
      rebalanceTimeout = 60_000,
      heartbeatInterval = 3_000,
      maxWaitTimeInMs = 5_000,
    } = settings;
    const { maxBatch = 500 } = settings;
    const coordinator = group(groupId);
    const listeners = new Map<string, Set<(event: { payload: unknown }) => void>>();
    const seeks = new Map<string, number>();
    const paused = new Set<string>();
    let resolved = new Map<string, number>();
    let assigned: string[] = [];
    let memberId: string | undefined;
    let generation = 0;
    let lastRequest = 0;
    let running = false;
    let ended: Promise<void> = Promise.resolve();
    let frozen: { done: Promise<void>; open: () => void } | undefined;
    let run: RunSettings = {};

    const emit = (name: string, payload: unknown) => {
      for (const listener of listeners.get(name) ?? []) listener({ payload });
    };

    async function request<T>(name: string, send: () => T | Promise<T>, offset?: number): Promise<T> {
      await frozen?.done;
      refuseHotLoop();
      model.log.push(offset === undefined ? { name } : { name, offset });
      await model.intercept(name);
      const answer = await send();
      await frozen?.done;
      emit('consumer.network.request', { apiName: name });
      return answer;
    }

    let moment = { at: 0, requests: 0 };
    /** Virtual time stands still while anybody goes on asking: a loop without a pause would never end. */
    function refuseHotLoop(): void {
      if (moment.at !== clock.now()) moment = { at: clock.now(), requests: 0 };
      if (++moment.requests > 1_000) throw new TypeError('1,000 requests in one moment');
    }

    async function join(): Promise<void> {
      const joined = await request('JoinGroup', () => coordinator.join(memberId, { topics, sessionTimeout, rebalanceTimeout }));
      memberId = joined.memberId;
      generation = joined.generation;
      lastRequest = clock.now();
      assigned = joined.assigned;
      resolved = new Map();
      const memberAssignment: Record<string, number[]> = {};
      for (const name of assigned) {
        const [topic, partition] = name.split('/') as [string, string];
        memberAssignment[topic] ??= [];
        memberAssignment[topic].push(Number(partition));
      }
      emit('consumer.group_join', { groupId, memberId, memberAssignment });
    }

    async function heartbeat(): Promise<void> {
      if (clock.now() < lastRequest + heartbeatInterval) return;
      const [id, of] = [memberId, generation];
      await request('Heartbeat', () => coordinator.heartbeat(id, of));
      lastRequest = clock.now();
      emit('consumer.heartbeat', { groupId, memberId: id, groupGenerationId: of });
    }

    async function commit(name: string, offset: number): Promise<void> {
      const [id, of] = [memberId, generation];
      await request('OffsetCommit', () => coordinator.commit(id, of, name, offset), offset);
      const [topic, partition] = name.split('/') as [string, string];
      emit('consumer.commit_offsets', { topics: [{ topic, partitions: [{ partition: Number(partition), offset }] }] });
    }

    const positionOf = (name: string) => resolved.get(name) ?? coordinator.committed(name) ?? 0;

    async function autoCommit(): Promise<void> {
      if (run.autoCommit === false) return;
      for (const [name, offset] of resolved) if (offset !== coordinator.committed(name)) await commit(name, offset);
    }

    /** The next records of a partition; those that are not shown are left out. */
    function fetch(name: string) {
      const [topic, partition] = name.split('/') as [string, string];
      const log = logs.get(topic)![Number(partition)]!;
      const from = positionOf(name);
      const records = log.slice(from, from + maxBatch);
      if (records.length === 0) return undefined;
      const last = records.at(-1)!.offset;
      return {
        topic,
        partition: Number(partition),
        highWatermark: String(log.length),
        fetchedOffset: String(from),
        messages: records.filter(({ isControl }) => !isControl),
        lastOffset: () => last,
      };
    }

    async function handle(batch: NonNullable<ReturnType<typeof fetch>>): Promise<void> {
      const { topic, partition, messages } = batch;
      const name = `${topic}/${partition}`;
      const resolve = (offset: string) => {
        if (!assigned.includes(name)) throw new TypeError("Cannot set properties of undefined (setting '0')");
        resolved.set(name, Number(offset) + 1);
      };
      const pause = () => {
        paused.add(name);
        return () => void paused.delete(name);
      };
      if (messages.length === 0) return resolve(batch.lastOffset());
      if (run.eachMessage) {
        for (const message of messages) {
          await run.eachMessage({ topic, partition, message, heartbeat, pause });
          resolve(message.offset);
          if (seeks.has(name) || paused.has(name) || !running) break;
          await heartbeat();
        }
      } else {
        await run.eachBatch!({
          batch,
          heartbeat,
          pause,
          resolveOffset: (offset) => resolve(offset === messages.at(-1)!.offset ? batch.lastOffset() : offset),
          commitOffsetsIfNecessary: async (offsets) => {
            for (const each of offsets?.topics ?? [])
              for (const { partition: of, offset } of each.partitions) await commit(`${each.topic}/${of}`, Number(offset));
          },
          uncommittedOffsets: () => ({
            topics: [...resolved].map(([each, offset]) => {
              const [of, number] = each.split('/') as [string, string];
              // As kafkajs does: the number is text.
              return { topic: of, partitions: [{ partition: number as unknown as number, offset: String(offset) }] };
            }),
          }),
        });
        if (run.eachBatchAutoResolve !== false) resolve(batch.lastOffset());
      }
      emit('consumer.end_batch_process', { topic, partition });
    }

    async function turn(): Promise<void> {
      for (const [name, offset] of seeks) {
        seeks.delete(name);
        if (!assigned.includes(name)) continue;
        if (run.autoCommit !== false) await request('OffsetCommit', () => coordinator.commit(memberId, generation, name, offset), offset);
        resolved.set(name, offset);
      }
      await request('Fetch', () => {});
      let found = false;
      for (const name of [...assigned]) {
        const batch = paused.has(name) ? undefined : fetch(name);
        if (!batch) continue;
        found = true;
        await handle(batch);
        await autoCommit();
        await heartbeat();
        if (!running) return;
      }
      if (found) return;
      const waiting = new AbortController();
      arrived.push(() => waiting.abort());
      await sleep(clock, maxWaitTimeInMs, waiting.signal);
      await frozen?.done;
      await heartbeat();
    }

    async function loop(): Promise<void> {
      await join();
      while (running) {
        try {
          await turn();
        } catch (error) {
          const { type } = error as { type?: string };
          if (type === 'UNKNOWN_MEMBER_ID') memberId = undefined;
          else if (type === 'REBALANCE_IN_PROGRESS' || type === 'ILLEGAL_GENERATION') emit('consumer.rebalancing', { groupId, memberId });
          else {
            const { retriable } = error as { retriable?: boolean };
            const restart = !(error instanceof TypeError || error instanceof RangeError) && retriable !== false;
            model.crashes.push({ error: error as Error, restart });
            emit('consumer.crash', { error, groupId, restart });
            if (!restart) return void (running = false);
            await sleep(clock, 300);
          }
          if (running) await join();
        }
      }
    }

    const model: ConsumerModel = {
      log: [],
      crashes: [],
      paused,
      intercept: async () => {},
      on(name, listener) {
        const known = listeners.get(name) ?? new Set();
        listeners.set(name, known.add(listener));
        return () => void known.delete(listener);
      },
      seek({ topic, partition, offset }) {
        if (!running) throw new Error('Consumer group was not initialized, consumer#run must be called first');
        seeks.set(`${topic}/${partition}`, Number(offset));
      },
      async commitOffsets(offsets) {
        for (const { topic, partition, offset } of offsets) await commit(`${topic}/${partition}`, Number(offset));
      },
      async run(given) {
        run = given;
        running = true;
        ended = loop();
      },
      async stop() {
        running = false;
        for (const wake of arrived.splice(0)) wake();
        await ended;
        if (memberId !== undefined) coordinator.leave(memberId);
        memberId = undefined;
        emit('consumer.stop', null);
      },
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
    };
    return model;
  }

  return {
    group,
    consumer,
    createTopic: (topic, partitions = 1) =>
      void logs.set(
        topic,
        Array.from({ length: partitions }, () => []),
      ),
    recreateTopic: (topic) =>
      void logs.set(
        topic,
        logs.get(topic)!.map(() => []),
      ),
    produce(topic, messages) {
      for (const { id, key = id, value = JSON.stringify({ id }), partition = 0 } of messages) {
        append(topic, partition, {
          key: key === null ? null : Buffer.from(key),
          value: Buffer.from(value),
          headers: { 'message-id': Buffer.from(id) },
          isControl: false,
        });
      }
    },
    produceControl: (topic, partition) => append(topic, partition, { key: null, value: null, isControl: true }),
  };
}
