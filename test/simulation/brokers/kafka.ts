import type { KafkaProducer } from '../../../adapters/brokers/kafka/client.ts';
import { kafka, type WatermarkStore, watermark } from '../../../adapters/brokers/kafka/index.ts';
import type { KafkaTransactions } from '../../../adapters/stores/kafka-transactions/index.ts';
import { type Receiver, ReceiverError } from '../../../src/index.ts';
import type { TransactionalStore } from '../../../src/store.ts';
import type { Kernel } from '../../../src/testing/virtual/kernel.ts';
import type { VirtualTx } from '../../../src/testing/virtual/units.ts';
import type { Watermark, Watermarks } from '../../../src/watermarks.ts';
import { ClusterModel } from '../../adapters/brokers/kafka/model-cluster.ts';
import { kafkajsConsumer, type Wire } from '../../adapters/brokers/kafka/model-consumer.ts';
import type { GroupWatch } from '../../adapters/brokers/kafka/model-group.ts';
import type { SimBroker, Whereabouts, WorkerStore } from '../broker.ts';
import type { Chance } from '../chance.ts';
import type { Run } from '../ledger.ts';
import type { Link } from '../link.ts';
import { Server } from '../link.ts';
import type { Scenario, Sent } from '../scenario.ts';
import type { Watch } from '../watch.ts';
import { epoch, type Worker } from '../worker.ts';

const topic = 'work';
export const groupId = 'group';

/** Kafka may be the store too. */
export interface KafkaSimBroker extends SimBroker {
  readonly cluster: ClusterModel;
  /** When a worker was last a member of its group, as far as it has been told. `assignedAt`: when it was last given partitions. */
  memberAt(worker: Worker): number;
  assignedAt(worker: Worker): number;
}

/** A topic of Kafka and a consumer group that reads it; read by the real adapter through a model of kafkajs. */
export function kafkaBroker(kernel: Kernel, chance: Chance, scenario: Scenario, watch: Watch): KafkaSimBroker {
  const { partitions, order, gaps, ...settings } = scenario.kafka;
  const cluster = new ClusterModel({ now: () => kernel.now, wall: () => epoch + kernel.now, after: (ms, task) => kernel.after(ms, task) });
  const gap = chance.stream('gaps');
  const faults = chance.site('producer');
  const messages: Whereabouts[] = [];
  const byId = new Map<string, Whereabouts>();
  /** By client id; members' ids begin with it. */
  const workers = new Map<string, Worker>();
  const committed = new Map<string, number>();
  const dressed = new Map<Worker, WatermarkStore>();
  const transacting = new Map<Worker, KafkaTransactions>();
  const [members, assigned] = [new Map<Worker, number>(), new Map<Worker, number>()];
  let copies = 0;

  cluster.createTopic(topic, partitions);
  const watcher: GroupWatch = {
    rebalanced(generation) {
      watch.count('rebalances');
      watch.tell('kafka', () => `generation ${generation}: ${cluster.group(groupId).members().join(', ')}`);
    },
    out(memberId, why) {
      watch.tell('kafka', () => `${memberId} is out: ${why}`, why !== 'left');
      const worker = workerOf(memberId);
      if (why === 'left' || !worker.alive || !cluster.group(groupId).knows(memberId)) return;
      watch.count('expelled');
      // A heartbeat that got no answer keeps the next one waiting.
      const since = kernel.now - scenario.visibilityMs - settings.requestTimeoutMs - 1_000;
      if (why === 'session' && !worker.troubles.some((at) => at >= since))
        watch.violation('I4', `${memberId} was silent for its session, and nothing had happened to it`);
      worker.trouble(true);
    },
    refused(memberId, name, offset) {
      watch.count('refusedCommits');
      watch.tell('kafka', () => `refuses ${memberId} to commit offset ${offset} of ${name}`);
    },
    committed(name, offset, memberId) {
      const before = committed.get(name) ?? 0;
      watch.tell('kafka', () => `${memberId} commits offset ${offset} of ${name}`);
      passed(name, before, offset);
    },
  };
  // Named first: see `Checks.connect`.
  const watchOf = (id: string) => (id === groupId ? watcher : {});
  cluster.watch = watchOf;

  const workerOf = (memberId: string): Worker => workers.get(memberId.slice(0, memberId.lastIndexOf('-')))!;

  /** I9: what is passed is done, and nothing is un-passed. A row of the watermark may be behind the committed offset, and counts. */
  function passed(name: string, before: number, offset: number): void {
    if (offset < before && !settings.watermark)
      watch.violation('I9', `the committed offset of ${name} goes back from ${before} to ${offset}`);
    committed.set(name, offset);
    for (let at = before; at < offset; at++) {
      const message = byId.get(`${name}/${at}`);
      if (message?.state !== 'queued') continue;
      message.state = 'acked';
      broker.onAck(message);
    }
  }

  function append(sent: Sent, sentAt: number): void {
    const partition = Number(sent.group.slice(1)) % partitions;
    const name = `${topic}/${partition}`;
    const offset = cluster.append(name, {
      key: Buffer.from(sent.group),
      value: Buffer.from(JSON.stringify({ id: sent.key, payload: sent.payload })),
      headers: sent.kind === 'malformed' ? {} : { id: Buffer.from(sent.key) },
      timestamp: String(epoch + sentAt),
    });
    const messageId = `${name}/${offset}`;
    const message: Whereabouts = {
      sent,
      messageId,
      order: messages.length,
      sentAt,
      state: 'queued',
      redriven: false,
      deliveries: 0,
      firsts: 0,
    };
    messages.push(message);
    byId.set(messageId, message);
    watch.tell('producer', () => `sends ${sent.name} (${sent.kind}, key ${sent.key}, group ${sent.group}) as ${messageId}`);
    if (gap.happens(gaps)) cluster.append(name, { key: null, value: null, isControl: true });
    cluster.wake();
  }

  let late = 0;
  const broker: KafkaSimBroker = {
    cluster,
    memberAt: (worker) => members.get(worker) ?? Number.NEGATIVE_INFINITY,
    assignedAt: (worker) => assigned.get(worker) ?? Number.NEGATIVE_INFINITY,
    server: new Server('kafka'),
    ordered: order !== 'none',
    requestTimeoutMs: settings.requestTimeoutMs,
    messages,
    find: (messageId) => byId.get(messageId)!,
    onAck: () => {},
    quiet: () => late === 0 && messages.every(({ state }) => state !== 'queued'),
    send(sent) {
      const sentAt = kernel.now;
      late++;
      kernel.after(sent.hiddenMs, () => {
        late--;
        append(sent, sentAt);
      });
      // A producer that sends again, without knowing that it has: the copy has an offset of its own.
      const fault = faults.draw(scenario.odds.queue, kernel.now);
      if (fault?.kind !== 'copy') return;
      watch.count('copies');
      late++;
      kernel.after(sent.hiddenMs + fault.size * scenario.visibilityMs * 2, () => {
        late--;
        append({ ...sent, name: `${sent.name}*${++copies}`, copyOf: sent.name }, sentAt);
      });
    },
    dress(worker, store) {
      if (scenario.broker === 'kafka-transactions') transacting.set(worker, store as unknown as KafkaTransactions);
      if (!settings.watermark) return store;
      const with_ = watermark({ store: store as TransactionalStore<VirtualTx<Run>>, rows: rows() });
      dressed.set(worker, with_);
      return with_ as unknown as WorkerStore;
    },
    consumer(worker, link, receiver) {
      workers.set(worker.name, worker);
      const consumer = kafkajsConsumer(cluster, provingWire(worker, link), {
        groupId,
        topics: [topic],
        clientId: worker.name,
        sessionTimeout: scenario.visibilityMs,
        rebalanceTimeout: settings.rebalanceMs,
        heartbeatInterval: settings.heartbeatMs,
        maxWaitTimeInMs: settings.maxWaitMs,
        maxBatch: settings.maxBatch,
      });
      let overdue = 0;
      const adapter = kafka(counting(worker, receiver), {
        consumer,
        deadLetter: { producer: producerOf(worker, link), topic: 'dead' },
        order,
        maxInFlight: scenario.maxInFlight,
        window: settings.window,
        partitionsConsumedConcurrently: settings.partitionsAtOnce,
        sessionTimeoutMs: scenario.visibilityMs,
        ...(dressed.has(worker) && { watermark: dressed.get(worker)! }),
        ...(transacting.has(worker) && { transactions: transacting.get(worker)! }),
        onError(error, during) {
          watch.tell(worker.name, () => `${during}: ${String(error)}`);
          if (during !== 'membership' || !(error instanceof ReceiverError)) return;
          watch.count('overdue');
          // Told again, there was nothing to make kafkajs join by, and the process has to be started anew, as the README says.
          if (++overdue > 1) kernel.after(0, () => worker.crash());
        },
      });
      return {
        run: () =>
          new Promise((_, reject) => {
            consumer.on('consumer.crash' as never, ({ payload: { error, restart } }) => {
              watch.tell(worker.name, () => `kafkajs crashes: ${String(error)}${restart ? ', and starts again' : ''}`, true);
              watch.count('clientCrashes');
              if (!restart) reject(error);
            });
            void consumer.run(adapter.run());
          }),
        async stop(options) {
          const stopped = await adapter.stop(options);
          await consumer.stop();
          await transacting.get(worker)?.close();
          return stopped;
        },
      };
    },
  };

  function provingWire(worker: Worker, link: Link): Wire {
    const wire = wireOf(worker, link, watch);
    return {
      ...wire,
      async call(api, run) {
        let at = 0;
        const answer = await wire.call(api, () => {
          at = kernel.now;
          return run();
        });
        if (api === 'SyncGroup') assigned.set(worker, at);
        if (api === 'SyncGroup' || api === 'Heartbeat') members.set(worker, at);
        return answer;
      },
    };
  }

  function counting(worker: Worker, receiver: Receiver): Receiver {
    return {
      ...receiver,
      process(deliveries, source) {
        for (const { message, redelivered } of deliveries) {
          const found = broker.find(message.id);
          if (found.deliveries++ > 0) watch.count('redeliveries');
          if (!redelivered) found.firsts++;
          watch.tell(worker.name, () => `takes ${found.sent.name}${redelivered ? ', maybe not for the first time' : ''}`);
        }
        return receiver.process(deliveries, source);
      },
    };
  }

  function producerOf(worker: Worker, link: Link): KafkaProducer {
    return {
      send: ({ messages: letters }) =>
        link.call('dead-letter', () => {
          for (const { headers } of letters) {
            const at = ['topic', 'partition', 'offset'].map((name) => headers[`dead-letter-${name}`]).join('/');
            const message = broker.find(at);
            watch.tell(
              'kafka',
              () => `${worker.name} puts ${message.sent.name} into the dead-letter topic: ${headers['dead-letter-reason']}`,
            );
            if (message.state === 'queued') message.state = 'dead-lettered';
          }
        }),
    };
  }

  return broker;
}

/** Timers of the client are not those of the receiver and the adapter, which are counted. */
export function wireOf(worker: Worker, link: Link, watch: Watch, prefix = ''): Wire {
  let asked = 0;
  let since = 0;
  return {
    now: worker.clock.now,
    sleep: (ms) => worker.sleep(ms),
    call(api, run) {
      if (worker.kernel.now - since > 10_000) [asked, since] = [0, worker.kernel.now];
      if (++asked === 500) watch.violation('broken', `${worker.name} has sent ${asked} requests within 10 s`);
      return link.call(`${prefix}${api}`, run);
    },
  };
}

/** Rows of the virtual database. */
function rows(): Watermarks<VirtualTx<Run>> {
  type Row = Watermark & { readonly owner: string; readonly fresh: boolean };
  const read = async (tx: VirtualTx<Run>, name: string) => (await tx.get(name)) as Row | undefined;
  const markOf = (row: Row | undefined) => (row && !row.fresh ? { next: row.next, done: row.done } : undefined);
  return {
    async take(tx, name, owner) {
      const row = await read(tx, name);
      await tx.set(name, { next: 0, done: '', fresh: true, ...row, owner });
      return markOf(row);
    },
    async read(tx, name, owner) {
      const row = await read(tx, name);
      return row?.owner === owner ? markOf(row) : 'lost';
    },
    async advance(tx, name, owner, to, from) {
      const row = await read(tx, name);
      if (row?.owner !== owner) return false;
      if (from !== undefined && JSON.stringify(from) !== JSON.stringify(markOf(row) ?? null)) return false;
      await tx.set(name, { ...(from === undefined ? { next: Math.max(row.next, to.next), done: '' } : to), fresh: false, owner });
      return true;
    },
  };
}
