import { entryWords } from '../../../adapters/stores/kafka-transactions/ids.ts';
import { kafkaTransactions } from '../../../adapters/stores/kafka-transactions/index.ts';
import { decodeRecord, entriesOf } from '../../../adapters/stores/kafka-transactions/record.ts';
import type { Key } from '../../../src/store.ts';
import type { Kernel } from '../../../src/testing/virtual/kernel.ts';
import { kafkajsClient } from '../../adapters/brokers/kafka/model-client.ts';
import type { Wire } from '../../adapters/brokers/kafka/model-consumer.ts';
import { type ProducerId, TransactionsModel } from '../../adapters/brokers/kafka/model-transactions.ts';
import type { WorkerStore } from '../broker.ts';
import type { Chance } from '../chance.ts';
import type { Ledger } from '../ledger.ts';
import type { Scenario } from '../scenario.ts';
import type { Seen, SimStore } from '../stores.ts';
import type { Watch } from '../watch.ts';
import { epoch, type Worker } from '../worker.ts';
import { groupId, type KafkaSimBroker, wireOf } from './kafka.ts';

const log = 'log';

/** Kafka as the store: what handlers publish is the effect, the dedup log is what is known, and both are there when their transaction is decided. */
export function logStore(parts: {
  kernel: Kernel;
  chance: Chance;
  scenario: Scenario;
  watch: Watch;
  ledger: Ledger;
  broker: KafkaSimBroker;
}): SimStore {
  const { kernel, chance, scenario, watch, ledger, broker } = parts;
  const { flushTimeoutMs, markerMs } = scenario.kafka;
  const known = new Map<string, Seen>();
  const pace = chance.stream('markers');
  const clock = { now: () => kernel.now, wall: () => epoch + kernel.now, after: (ms: number, task: () => void) => kernel.after(ms, task) };
  const transactions = new TransactionsModel(clock, broker.cluster, () => 1 + pace.next() * markerMs, {
    decided(outcome, records) {
      if (outcome === 'aborted') watch.count('abortedTransactions');
      const published: number[] = [];
      for (const [name, list] of records) {
        watch.tell('kafka', () => `a transaction is ${outcome}: ${list.length} records of ${name}`);
        if (outcome === 'aborted') continue;
        for (const { value, offset } of list) {
          if (name.startsWith('out/')) published.push(Number(value!.toString()));
          else remember(value, `${name}/${offset}`);
        }
      }
      if (published.length > 0) ledger.commit(published.map((id) => ledger.runs[id - 1]!));
    },
    fences: (transactionalId) => void owners.set(transactionalId, asking!),
    fenced({ transactionalId }) {
      refused = transactionalId;
      watch.count('fencedProducers');
      watch.tell('kafka', () => `refuses an older producer of ${transactionalId}`);
    },
  });
  /** Whose request is being answered, and by transactional id who has asked for a producer last. */
  let asking: Worker | undefined;
  const owners = new Map<string, Worker>();
  let refused = '';
  broker.cluster.createTopic('out');

  function remember(value: Buffer | null, where: string): void {
    const { entries, notes } = decodeRecord(value, where);
    const rest = { token: '', leaseUntil: 0, claimedAt: kernel.now, result: undefined };
    for (let at = 0; at < entries.length; at += entryWords)
      known.set(idOf(entries, at), { ...rest, state: 'completed', attempts: 0, reason: '' });
    for (const { key, attempts, parked } of notes) {
      const id = idOf(entriesOf([{ key, fingerprint: '' }]), 0);
      if (known.get(id)?.state === 'completed') continue;
      known.set(id, { ...rest, state: parked ? 'parked' : 'released', attempts, reason: parked?.reason ?? '' });
    }
  }

  return {
    server: broker.server,
    seen: (key: Key) => known.get(idOf(entriesOf([{ key, fingerprint: '' }]), 0)),
    onLapse() {},
    lost: new Map(),
    client(worker, link) {
      const plain = wireOf(worker, link, watch, 'log ');
      /** By transactional id: when this worker was told that somebody else has it. */
      const fencedAt = new Map<string, number>();
      /** I3: who was fenced fences nobody before the group says that the partition is still its own; two would do it in turn for ever. */
      function mayFence(id: string): void {
        if (broker.memberAt(worker) < (fencedAt.get(id) ?? Number.NEGATIVE_INFINITY))
          watch.violation('I3', `${worker.name} makes a producer of ${id} anew, which somebody else has, without a proof that it may`);
      }
      const wire: Wire = {
        ...plain,
        async call(api, run) {
          let done = false;
          let id = '';
          try {
            return await plain.call(api, async () => {
              asking = worker;
              try {
                const given = await run();
                done = true;
                if (api === 'InitProducerId') mayFence((given as ProducerId).transactionalId);
                return given;
              } catch (error) {
                if ((error as { type?: string }).type === 'INVALID_PRODUCER_EPOCH' && owners.get(refused) !== worker) id = refused;
                throw error;
              }
            });
          } catch (error) {
            // To a transaction that has been given up meanwhile nobody listens any more.
            if (id !== '' && !worker.troubles.some((at) => at >= kernel.now - 2 * flushTimeoutMs)) fencedAt.set(id, kernel.now);
            if (api === 'EndTxn') {
              watch.count('inDoubt');
              if (done) watch.count('inDoubtCommitted');
            }
            throw error;
          }
        },
      };
      const store = kafkaTransactions({
        kafka: kafkajsClient(broker.cluster, transactions, wire, worker.name),
        groupId,
        dedupLog: log,
        flushTimeoutMs,
        transactionTimeoutMs: flushTimeoutMs * 2,
        takeOverTimeoutMs: flushTimeoutMs * 4,
        world: worker,
      });
      const { assign } = store;
      const begun = new Map<string, number>();
      const assigning: typeof assign = (of) => {
        const name = `${groupId}.${of.topic}.${of.partition}.`;
        const at = broker.assignedAt(worker);
        // The first take-over of an assignment is proof enough, whatever was heard while the one before was given back.
        if (at !== begun.get(name)) for (const id of fencedAt.keys()) if (id.includes(name)) fencedAt.delete(id);
        begun.set(name, at);
        return assign(of);
      };
      return Object.assign(store, { assign: assigning }) as unknown as WorkerStore;
    },
  };
}

/** What the log keeps of a key. */
const idOf = (entries: Int32Array, at: number): string => entries.subarray(at, at + 4).join();
