import type { KafkaBatchPayload, KafkaConsumer, KafkaMessagePayload } from '../../../../adapters/brokers/kafka/client.ts';
import type { ClusterModel } from './model-cluster.ts';
import type { Fetched } from './model-log.ts';

/** The process that a client of the model lives in, and its way to the brokers. */
export interface Wire {
  now(): number;
  sleep(ms: number): Promise<unknown>;
  /** One request, by the name of its API. `offset`: what it commits. */
  call<T>(api: string, run: () => T | Promise<T>, offset?: number): Promise<T>;
}

export interface ConsumerSettings {
  readonly groupId: string;
  readonly topics: readonly string[];
  readonly clientId?: string;
  readonly sessionTimeout?: number;
  readonly rebalanceTimeout?: number;
  readonly heartbeatInterval?: number;
  readonly maxWaitTimeInMs?: number;
  /** Messages in a batch at most. */
  readonly maxBatch?: number;
  readonly readUncommitted?: boolean;
  /** Where a group without an offset begins, and one whose offset is not in the log. */
  readonly fromBeginning?: boolean;
}

export interface RunSettings {
  readonly autoCommit?: boolean;
  readonly eachBatchAutoResolve?: boolean;
  readonly partitionsConsumedConcurrently?: number;
  readonly eachBatch?: (payload: KafkaBatchPayload) => Promise<void>;
  readonly eachMessage?: (payload: KafkaMessagePayload) => Promise<void>;
}

export interface Crash {
  readonly error: Error;
  readonly restart: boolean;
}

/** A consumer of kafkajs: what the adapters use, and what tests and the simulator do with it. */
export interface KafkajsConsumer extends KafkaConsumer {
  run(settings: RunSettings): Promise<void>;
  stop(): Promise<void>;
  pause(topics: readonly { topic: string; partitions?: readonly number[] }[]): void;
  resume(topics: readonly { topic: string; partitions?: readonly number[] }[]): void;
  /** One of its fetchers, there is one for each broker, has met metadata that is out of date: it joins anew by itself, whatever the others are about. */
  rejoin(): Promise<void>;
  readonly crashes: Crash[];
  readonly paused: ReadonlySet<string>;
  emit(name: string, payload: unknown): void;
}

/** How often kafkajs tries again before it gives up, and how long it waits at first. */
const retries = 5;
const firstRetryMs = 300;

/**
 * kafkajs's consumer 2.2.4, request by request, as read in its sources (`runner.js`, `consumerGroup.js`, `offsetManager`, `fetchManager.js`, `retry`) and
 * measured on Kafka 4.3 (facts/kafka.md, 1.4, 1.5). What it gets wrong is here too: a join that breaks off leaves it reading what it had before, under
 * the new generation if only the answer to SyncGroup was lost, and without any heartbeat if it was unknown to the coordinator.
 */
export function kafkajsConsumer(cluster: ClusterModel, wire: Wire, settings: ConsumerSettings): KafkajsConsumer {
  const { groupId, topics, clientId, sessionTimeout = 30_000, rebalanceTimeout = 60_000 } = settings;
  const { heartbeatInterval = 3_000, maxWaitTimeInMs = 5_000, maxBatch = 500, readUncommitted = false, fromBeginning = true } = settings;
  const listeners = new Map<string, Set<(event: { payload: unknown }) => void>>();
  const crashes: Crash[] = [];
  const paused = new Set<string>();
  let life: Life | undefined;

  const emit = (name: string, payload: unknown) => {
    for (const listener of listeners.get(name) ?? []) listener({ payload });
  };

  const around: Around = {
    cluster,
    coordinator: cluster.group(groupId),
    wire,
    groupId,
    membership: { clientId, topics, sessionTimeout, rebalanceTimeout },
    heartbeatInterval,
    maxWaitTimeInMs,
    maxBatch,
    readUncommitted,
    fromBeginning,
    crashes,
    paused,
    run: {},
    stopped: false,
    emit,
    begin,
    pauseOne(name) {
      paused.add(name);
      return () => void paused.delete(name);
    },
  };

  function begin(): void {
    life = new Life(around);
    life.start();
  }

  async function stop(): Promise<void> {
    around.stopped = true;
    if (!life?.running) return;
    life.running = false;
    await life.ended;
    await life.leave();
    emit('consumer.stop', null);
  }

  function namesOf(list: readonly { topic: string; partitions?: readonly number[] }[]): string[] {
    return list.flatMap(({ topic, partitions }) =>
      (partitions ?? cluster.partitions(topic)!.map((_, i) => i)).map((partition) => `${topic}/${partition}`),
    );
  }

  return {
    crashes,
    paused,
    emit,
    on(name, listener) {
      const known = listeners.get(name) ?? new Set();
      listeners.set(name, known.add(listener));
      return () => void known.delete(listener);
    },
    seek({ topic, partition, offset }) {
      if (!life) throw new Error('Consumer group was not initialized, consumer#run must be called first');
      life.seeks.set(`${topic}/${partition}`, Number(offset));
    },
    pause: (list) => namesOf(list).forEach((name) => void paused.add(name)),
    resume: (list) => namesOf(list).forEach((name) => void paused.delete(name)),
    async commitOffsets(offsets) {
      for (const { topic, partition, offset } of offsets) await life!.commit(`${topic}/${partition}`, Number(offset));
    },
    async connect() {
      emit('consumer.connect', null);
    },
    async disconnect() {
      await stop();
      emit('consumer.disconnect', null);
    },
    async run(given) {
      around.run = given;
      around.stopped = false;
      begin();
    },
    stop,
    rejoin: () => life!.rejoin(),
  };
}

/** What a life knows of the consumer that it is one of. */
interface Around {
  readonly cluster: ClusterModel;
  readonly coordinator: ReturnType<ClusterModel['group']>;
  readonly wire: Wire;
  readonly groupId: string;
  readonly membership: Parameters<ReturnType<ClusterModel['group']>['join']>[1];
  readonly heartbeatInterval: number;
  readonly maxWaitTimeInMs: number;
  readonly maxBatch: number;
  readonly readUncommitted: boolean;
  readonly fromBeginning: boolean;
  readonly crashes: Crash[];
  readonly paused: ReadonlySet<string>;
  run: RunSettings;
  stopped: boolean;
  emit(name: string, payload: unknown): void;
  pauseOne(name: string): () => void;
  begin(): void;
}

/** From `run`, or from a restart, to the next crash: kafkajs's `ConsumerGroup` and `Runner`. */
class Life {
  readonly #of: Around;
  readonly seeks = new Map<string, number>();
  running = false;
  ended: Promise<void> = Promise.resolve();
  #memberId: string | undefined;
  #generation = 0;
  #lastRequest: number;
  #beating: Promise<void> | undefined;
  #assigned: string[] = [];
  /** Of the last join that came to its end: kafkajs's `OffsetManager`. */
  #term: { readonly memberId: string | undefined; readonly generation: number } = { memberId: undefined, generation: 0 };
  #resolved = new Map<string, number>();
  #committed = new Map<string, number>();

  constructor(of: Around) {
    this.#of = of;
    this.#lastRequest = of.wire.now();
  }

  start(): void {
    this.ended = this.#start();
  }

  async #start(): Promise<void> {
    try {
      await this.#join();
    } catch (error) {
      return this.#crash(error as Error, isRetriable(error));
    }
    this.running = true;
    for (let failures = 0; this.running; ) {
      try {
        await this.#consume();
        failures = 0;
      } catch (error) {
        if (!isRetriable(error)) return this.#crash(error as Error, false);
        if (failures === retries) return this.#crash(error as Error, true);
        await this.#of.wire.sleep(firstRetryMs * 2 ** failures++);
      }
    }
  }

  /** Until the group has been joined anew. */
  async #consume(): Promise<void> {
    try {
      while (this.running) {
        this.#of.emit('consumer.fetch_start', { nodeId: 1 });
        const batches = await this.#fetch();
        this.#of.emit('consumer.fetch', { nodeId: 1 });
        if (batches.length > 0) await this.#handleAll(batches);
        else await this.#heartbeat();
      }
    } catch (error) {
      if (isRebalancing(error)) this.#of.emit('consumer.rebalancing', { groupId: this.#of.groupId, memberId: this.#memberId });
      else if (typeOf(error) === 'UNKNOWN_MEMBER_ID') this.#memberId = undefined;
      else throw error;
      await this.#join();
    }
  }

  async rejoin(): Promise<void> {
    this.#of.emit('consumer.fetch_start', { nodeId: 2 });
    await this.#join();
    this.#of.emit('consumer.fetch', { nodeId: 2 });
  }

  async #join(): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        const membership = this.#of.membership;
        const joined = await this.#of.wire.call('JoinGroup', () => this.#of.coordinator.join(this.#memberId, membership));
        this.#memberId = joined.memberId;
        this.#generation = joined.generation;
        const assigned = await this.#of.wire.call('SyncGroup', () => this.#of.coordinator.sync(joined.memberId, joined.generation));
        return this.#joined(assigned);
      } catch (error) {
        if (typeOf(error) === 'UNKNOWN_MEMBER_ID') this.#memberId = undefined;
        else if (!isRebalancing(error)) throw error;
        if (tries === retries) throw Object.assign(new Error(String(error)), { retriable: true });
        await this.#of.wire.sleep(firstRetryMs * 2 ** tries);
      }
    }
  }

  #joined(assigned: string[]): void {
    this.#assigned = assigned;
    this.#term = { memberId: this.#memberId, generation: this.#generation };
    this.#resolved = new Map();
    this.#committed = new Map();
    const memberAssignment: Record<string, number[]> = {};
    for (const name of assigned) {
      const [topic, partition] = parts(name);
      (memberAssignment[topic] ??= []).push(partition);
    }
    this.#of.emit('consumer.group_join', { groupId: this.#of.groupId, memberId: this.#memberId, memberAssignment });
  }

  async #fetch(): Promise<Fetched[]> {
    for (const [name, offset] of this.seeks) {
      this.seeks.delete(name);
      if (!this.#assigned.includes(name)) continue;
      // kafkajs commits where an auto-committing consumer is moved to.
      if (this.#of.run.autoCommit !== false) await this.#send(name, offset);
      this.#resolved.set(name, offset);
    }
    const unknown = this.#assigned.filter((name) => !this.#committed.has(name));
    if (unknown.length > 0) {
      const offsets = await this.#of.wire.call('OffsetFetch', () => unknown.map((name) => this.#beginning(name)));
      unknown.forEach((name, i) => void this.#committed.set(name, offsets[i]!));
    }
    const positions = new Map<string, number>();
    for (const name of this.#assigned) if (!this.#of.paused.has(name)) positions.set(name, this.#positionOf(name));
    if (positions.size === 0) {
      await this.#of.wire.sleep(this.#of.maxWaitTimeInMs);
      return [];
    }
    const { cluster, maxWaitTimeInMs, maxBatch, readUncommitted } = this.#of;
    for (const [name, position] of positions) if (position > cluster.log(name).records.length) return this.#outOfRange(name);
    const batches = await this.#of.wire.call('Fetch', () => cluster.fetch(positions, maxWaitTimeInMs, maxBatch, readUncommitted));
    return batches.filter((batch) => !this.seeks.has(nameOf(batch)) && !this.#of.paused.has(nameOf(batch)));
  }

  #beginning(name: string): number {
    const committed = this.#of.coordinator.committed(name) ?? -1;
    if (committed >= 0) return committed;
    return this.#of.fromBeginning ? 0 : this.#of.cluster.log(name).records.length;
  }

  /** kafkajs commits "the first", -2, or "the last", -1, and goes on from there, without a word. */
  async #outOfRange(name: string): Promise<[]> {
    await this.#send(name, this.#of.fromBeginning ? -2 : -1);
    this.#resolved.delete(name);
    this.#committed.delete(name);
    return [];
  }

  #positionOf(name: string): number {
    const known = this.#resolved.get(name);
    if (known !== undefined) return known;
    const committed = this.#committed.get(name)!;
    this.#resolved.set(name, committed);
    return committed;
  }

  /** As many partitions at once as `partitionsConsumedConcurrently` says; all have ended when one has failed. */
  async #handleAll(batches: Fetched[]): Promise<void> {
    const failures: unknown[] = [];
    const worker = async () => {
      for (let batch = batches.shift(); batch; batch = batches.shift()) {
        if (this.running) await this.#handle(batch).catch((error: unknown) => void failures.push(error));
      }
    };
    await Promise.all(Array.from({ length: this.#of.run.partitionsConsumedConcurrently ?? 1 }, worker));
    if (failures.length > 0) throw failures[0];
  }

  async #handle(batch: Fetched): Promise<void> {
    if (batch.messages.length === 0) {
      this.#resolve(batch, batch.lastOffset());
    } else {
      try {
        if (this.#of.run.eachMessage) await this.#eachMessage(batch);
        else await this.#of.run.eachBatch!(this.#payloadOf(batch));
      } catch (error) {
        await this.#autoCommit();
        throw error;
      }
      if (!this.#of.run.eachMessage && this.#of.run.eachBatchAutoResolve !== false) this.#resolve(batch, batch.lastOffset());
    }
    this.#of.emit('consumer.end_batch_process', { topic: batch.topic, partition: batch.partition });
    await this.#autoCommit();
    await this.#heartbeat();
  }

  async #eachMessage(batch: Fetched): Promise<void> {
    const { topic, partition } = batch;
    const name = nameOf(batch);
    for (const message of batch.messages) {
      if (!this.running || this.seeks.has(name)) break;
      await this.#of.run.eachMessage!({
        topic,
        partition,
        message,
        heartbeat: () => this.#heartbeat(),
        pause: () => this.#of.pauseOne(name),
      });
      this.#resolve(batch, message.offset);
      await this.#heartbeat();
      if (this.#of.paused.has(name)) break;
    }
  }

  #payloadOf(batch: Fetched): KafkaBatchPayload {
    const last = batch.messages.at(-1)!.offset;
    return {
      batch,
      heartbeat: () => this.#heartbeat(),
      pause: () => this.#of.pauseOne(nameOf(batch)),
      // With the last message that is shown, those behind it that are not.
      resolveOffset: (offset) => this.#resolve(batch, offset === last ? batch.lastOffset() : offset),
      commitOffsetsIfNecessary: async (offsets) => {
        for (const { topic, partitions } of offsets?.topics ?? [])
          for (const { partition, offset } of partitions) await this.commit(`${topic}/${partition}`, Number(offset));
      },
      uncommittedOffsets: () => ({
        topics: [...this.#resolved]
          .filter(([name, offset]) => offset !== this.#committed.get(name))
          .map(([name, offset]) => {
            const [topic, partition] = parts(name);
            // As kafkajs does: the number is text.
            return { topic, partitions: [{ partition: String(partition) as unknown as number, offset: String(offset) }] };
          }),
      }),
    };
  }

  #resolve(batch: Fetched, offset: string): void {
    if (!this.#assigned.includes(nameOf(batch))) throw new TypeError("Cannot set properties of undefined (setting '0')");
    this.#resolved.set(nameOf(batch), Number(offset) + 1);
  }

  #heartbeat(): Promise<void> {
    this.#beating ??= this.#beat().finally(() => {
      this.#beating = undefined;
    });
    return this.#beating.catch(async (error: unknown) => {
      if (isRebalancing(error)) await this.#autoCommit();
      throw error;
    });
  }

  async #beat(): Promise<void> {
    const [memberId, generation] = [this.#memberId, this.#generation];
    if (memberId === undefined || this.#of.wire.now() < this.#lastRequest + this.#of.heartbeatInterval) return;
    await this.#of.wire.call('Heartbeat', () => this.#of.coordinator.heartbeat(memberId, generation));
    this.#of.emit('consumer.heartbeat', { groupId: this.#of.groupId, memberId, groupGenerationId: generation });
    this.#lastRequest = this.#of.wire.now();
  }

  async #autoCommit(): Promise<void> {
    if (this.#of.run.autoCommit === false) return;
    for (const [name, offset] of this.#resolved) if (offset !== this.#committed.get(name)) await this.commit(name, offset);
  }

  async #send(name: string, offset: number): Promise<void> {
    const { memberId, generation } = this.#term;
    await this.#of.wire.call('OffsetCommit', () => this.#of.coordinator.commit(memberId, generation, name, offset), offset);
  }

  async commit(name: string, offset: number): Promise<void> {
    const committed = this.#committed;
    await this.#send(name, offset);
    const [topic, partition] = parts(name);
    this.#of.emit('consumer.commit_offsets', { topics: [{ topic, partitions: [{ partition, offset }] }] });
    committed.set(name, offset);
  }

  async #crash(error: Error, restart: boolean): Promise<void> {
    const wasRunning = this.running;
    this.running = false;
    if (wasRunning) await this.leave();
    this.#of.emit('consumer.stop', null);
    this.#of.emit('consumer.disconnect', null);
    this.#of.crashes.push({ error, restart });
    this.#of.emit('consumer.crash', { error, groupId: this.#of.groupId, restart });
    if (!restart || this.#of.stopped) return;
    await this.#of.wire.sleep(firstRetryMs);
    if (!this.#of.stopped) this.#of.begin();
  }

  async leave(): Promise<void> {
    const memberId = this.#memberId;
    this.#memberId = undefined;
    // What goes wrong here is swallowed.
    if (memberId !== undefined) await this.#of.wire.call('LeaveGroup', () => this.#of.coordinator.leave(memberId)).catch(() => {});
  }
}

const nameOf = ({ topic, partition }: Fetched): string => `${topic}/${partition}`;

function parts(name: string): [topic: string, partition: number] {
  const at = name.lastIndexOf('/');
  return [name.slice(0, at), Number(name.slice(at + 1))];
}

const typeOf = (error: unknown): unknown => (error as { type?: unknown } | undefined)?.type;

function isRebalancing(error: unknown): boolean {
  const type = typeOf(error);
  return type === 'REBALANCE_IN_PROGRESS' || type === 'NOT_COORDINATOR_FOR_GROUP' || type === 'ILLEGAL_GENERATION';
}

/** kafkajs does not try again after errors that look like a mistake in a program. */
function isRetriable(error: unknown): boolean {
  const { name, retriable } = error as { name?: string; retriable?: boolean };
  return retriable !== false && !['RangeError', 'ReferenceError', 'SyntaxError', 'TypeError'].includes(name ?? '');
}
