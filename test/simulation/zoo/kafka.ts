import { type Bug, kafka } from './bug.ts';

const folder = 'adapters/brokers/kafka';

/** Bugs of what stands between the receiver and a partition. */
export const kafkaBugs: readonly Bug[] = [
  {
    name: 'commits an offset past a failure',
    wild: 'resolveOffset out of order: kafkajs #1764 (W31, K 7.6)',
    look: kafka,
    patches: [{ file: `${folder}/partition.ts`, from: "if (verdict.reason === 'stopped') halt();", to: '$&\n      finish(delivery);' }],
  },
  {
    name: 'commits a batch whatever became of it',
    wild: 'kafkajs autoCommit, and eachBatchAutoResolve with handlers that swallow (W7, K 1.4)',
    look: kafka,
    patches: [{ file: `${folder}/offsets.ts`, from: 'return this.nextWith(nothing);', to: 'return this.#position;' }],
  },
  {
    name: 'commits the offset of the last message that is done, instead of the next one',
    wild: 'kafkajs #1633: commitOffsets wants processed + 1 (K 1.4)',
    look: kafka,
    patches: [{ file: `${folder}/assignments.ts`, from: 'commit(String(next));', to: 'commit(String(Math.max(0, next - 1)));' }],
  },
  {
    name: 'commits one offset too far',
    wild: 'processed + 1 of what is processed + 1 already: kafkajs #1633 (K 1.4)',
    look: kafka,
    patches: [{ file: `${folder}/assignments.ts`, from: 'commit(String(next));', to: 'commit(String(next + 1));' }],
  },
  {
    name: 'commits for a partition after it was lost',
    wild: 'kafkajs consumer.commitOffsets tries again under the next generation; #1046, #1097 (W29)',
    look: kafka,
    patches: [
      {
        file: `${folder}/commits.ts`,
        from: 'end.abort();\n      waiting?.cancel();\n      waiting = undefined;',
        to: '',
      },
    ],
  },
  {
    name: 'lets one commit overtake another',
    wild: 'ours, until the simulator found it',
    look: kafka,
    patches: [
      { file: `${folder}/commits.ts`, from: 'if (!end.signal.aborted && !waiting && !busy)', to: 'if (!end.signal.aborted && !waiting)' },
      {
        file: `${folder}/commits.ts`,
        from: 'await unlessAborted(end.signal, underWay);\n      if (end.signal.aborted',
        to: 'if (end.signal.aborted',
      },
    ],
  },
  {
    name: 'drops what waits in memory when the group rebalances, as if it were done',
    wild: 'kafkajs #28; PostHog: fence before drain (K 1.7, A 7.13)',
    look: kafka,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: 'halted = true;\n    queue.stop();',
        to: 'halted = true;\n    for (const { offset } of queue.take(1_000, () => true)) tracker.finish(offset);\n    commits?.advanced();\n    queue.stop();',
      },
    ],
  },
  {
    name: 'gives up what runs at each rebalance',
    wild: 'ours, until the simulator found it: a later try runs while kafkajs waits for nothing',
    look: [['leased', 'kafka']],
    patches: [{ file: `${folder}/partition.ts`, from: 'lost: taken.signal,', to: 'lost: over.signal,' }],
  },
  {
    name: 'sends no heartbeat while handlers run',
    wild: 'kafkajs eachBatch without heartbeat(): #1396, #1083, #447 (K 7.1)',
    look: kafka,
    patches: [
      {
        file: `${folder}/membership.ts`,
        from: 'await Promise.race([heartbeat().catch(refused), until]);',
        to: 'if (Number.isNaN(until)) await heartbeat().catch(refused);\n        await until;',
      },
    ],
  },
  {
    name: 'does not notice that kafkajs has not joined its group again',
    wild: 'kafkajs 2.2.4: a join that breaks off leaves it reading the partitions that it had before',
    look: kafka,
    patches: [
      { file: `${folder}/kafka.ts`, from: 'if (!member.isStable()) throw new JoinAnew();', to: 'if (!member.isStable()) return "again";' },
    ],
  },
  {
    name: 'orders nothing: messages with one record key run at the same time',
    wild: 'pools inside a partition: kafkajs #1764 (K 7.6)',
    look: kafka,
    patches: [
      {
        file: `${folder}/delivery.ts`,
        from: 'orderingKey: orderingKey(message),',
        to: 'orderingKey: orderingKey(message) && raw.offset,',
      },
    ],
  },
  {
    name: 'passes a message that did not arrive in the dead-letter topic',
    wild: 'error channels that drop: NServiceBus, Sidekiq plug-ins (A 7.20)',
    look: kafka,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: 'if (!(await settings.putAside(delivery, verdict, over.signal))) return;',
        to: 'void settings.putAside(delivery, verdict, over.signal);',
      },
    ],
  },
  {
    name: 'takes the time of reading for the time of sending, on Kafka',
    wild: 'consumers that stamp messages as they come, so that none is ever old (W23)',
    look: kafka,
    patches: [
      {
        file: `${folder}/delivery.ts`,
        from: 'sentAtMs: sentAtMs > 0 ? sentAtMs : undefined',
        to: 'sentAtMs: sentAtMs > 0 ? undefined : undefined',
      },
    ],
  },
  {
    name: 'keeps one account of offsets for all partitions of a topic',
    wild: 'offset maps keyed by topic (A 7.14, W31)',
    look: kafka,
    patches: [
      {
        file: `${folder}/assignments.ts`,
        from: 'of(name, arrival) {',
        to: "of(partition, arrival) {\n      const name = partition.split('/')[0]!;",
      },
    ],
  },
];
