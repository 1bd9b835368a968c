import type { Bug } from './bug.ts';

const folder = 'adapters/stores/kafka-transactions';
const look: Bug['look'] = [['transactional', 'kafka-transactions']];

/** Bugs of transactions that are Kafka's. */
export const kafkaTransactionsBugs: readonly Bug[] = [
  {
    name: 'makes new producers after it was fenced, without a proof that the partition is its own',
    wild: 'producers created anew at INVALID_PRODUCER_EPOCH: two owners fence each other in turn (W44, K 1.6 W4)',
    look,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: "if (isFenced(cause)) throw lose(at, 'its producers are fenced, or their transaction took too long', cause);",
        to: '',
      },
    ],
  },
  {
    name: 'tries again to take a partition over, without a proof that it is its own',
    wild: 'a consumer that is out of its group and has not heard of it fences the rightful owner with each try; so did we (K 1.6 W4)',
    look,
    patches: [
      {
        file: 'adapters/brokers/kafka/assignments.ts',
        from: 'if (failures > 0 && !(await unlessAborted(halt.signal, member().proven()))) return undefined;',
        to: '',
      },
    ],
  },
  {
    name: 'reads the committed offset before it fences the owner before',
    wild: 'kafkajs has read its position before any fence: OffsetFetch without require_stable (K 1.2, 1.6 W2)',
    look,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: 'await takeOver(at);\n          const offset = await topics.committed(of);',
        to: 'const offset = await topics.committed(of);\n          await takeOver(at);',
      },
    ],
  },
  {
    name: 'takes a commit in doubt for done',
    wild: 'lost replies to EndTxn swallowed (W45); Jepsen: Kafka transactions',
    look,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: 'if (!(await settled(at, record.id, cause)))',
        to: 'await settled(at, record.id, cause);\n      if (!at)',
      },
    ],
  },
  {
    name: 'takes a commit in doubt for failed',
    wild: 'abort and try again after a rejected commit (W45, K 1.3.1)',
    look,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: 'if (!(await settled(at, record.id, cause)))',
        to: 'if ([await settled(at, record.id, cause)])',
      },
    ],
  },
  {
    name: 'reads records of the dedup log that are not committed',
    wild: 'read_uncommitted consumers (W46)',
    look,
    patches: [{ file: `${folder}/reader.ts`, from: 'maxBytes: 32 << 20,', to: '$&\n      readUncommitted: true,' }],
  },
  {
    name: 'reads the dedup log only as far as it goes when the reading begins, and writes no mark of its own',
    wild: 'state that is restored up to an end offset that a fenced owner can still pass (K 1.6)',
    look,
    patches: [
      { file: `${folder}/partition.ts`, from: 'if (record.id.equals(until)) return true;', to: "if (record.kind !== 'unit') return true;" },
    ],
  },
  {
    name: 'takes a partition over without a fence',
    wild: 'transactional ids of the process instead of the partition: kafkajs zombies commit on (K 1.2, 1.6 W1)',
    look,
    patches: [
      {
        file: `${folder}/producers.ts`,
        from: 'index}`,',
        to: 'index}.` + clock.now(),',
      },
    ],
  },
  {
    name: 'commits on top of a unit that has not committed',
    wild: 'pipelined transactions whose predecessor was aborted (W45); ours for a moment after the failure, until the simulator found it',
    look,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: "if (at.failures !== failures) throw new ReceiverError('store', 'The unit before this one did not commit');",
        to: '',
      },
      { file: 'src/unit-of-work.ts', from: 'await sound();', to: 'void sound;' },
    ],
  },
  {
    name: 'commits the offset in a transaction of its own, after that of the effects',
    wild: 'send, commit, then commitOffsets: the usual blog (W6)',
    look,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: 'if (changes?.offset !== undefined) await step(() => sendOffset(tx, changes.offset!, isLate));',
        to: 'void sendOffset;',
      },
    ],
  },
  {
    name: 'records ids in another transaction than the effects',
    wild: 'a dedup store beside a Kafka transaction: a crash between them doubles what the producer sends twice (K 1.6)',
    look,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: 'const sent = await step(() => sendAll(tx, [...(chunks.at(-1) ?? []), log]));',
        to: 'const apart = await step(() => producers.begin());\n      const own = await step(() => sendAll(apart, [log]));\n      await step(() => apart.commit());\n      const rest = chunks.at(-1) ?? [];\n      const sent = rest.length > 0 ? [...own, ...(await step(() => sendAll(tx, rest)))] : own;',
      },
    ],
  },
  {
    name: 'takes ids of whatever characters for hexadecimal ones',
    wild: 'ours, until the simulator found it: a world whose tokens are no UUIDs',
    look,
    patches: [
      {
        file: `${folder}/partition.ts`,
        from: "Buffer.from(digest([random.token()], 22), 'base64url');",
        to: "Buffer.from(random.token().replaceAll('-', '').padEnd(32, '0').slice(0, 32), 'hex');\n  void digest;",
      },
    ],
  },
];
