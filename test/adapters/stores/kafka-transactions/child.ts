/*
 * A worker in a process of its own, started by kills.test.ts and poison.test.ts. It assigns the partition, handles the messages it is told until none
 * of them is to be tried again, and tells each verdict as a line. It kills itself where it is told to.
 *
 * argv: JSON of Task.
 */
import '../../../support/ends-with-parent.ts';
import { kafkaTransactions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import { attribute, createReceiver, type Delivery } from '../../../../src/index.ts';
import { clientOf, createPartitioner, deliveries, processAll } from './rig-base.ts';

export interface Task {
  readonly brokers: readonly string[];
  readonly input: string;
  readonly output: string;
  readonly dedupLog: string;
  readonly groupId: string;
  readonly ids: readonly string[];
  readonly partitions?: number;
  /** Where to die, or an id: in its handler. */
  readonly dieAt?: string;
  readonly maxAttempts?: number;
  readonly groupSize?: number;
  /** How long the handlers of the others take. */
  readonly slowMs?: number;
}

const task = JSON.parse(process.argv[2]!) as Task;
const { input, output, dedupLog, groupId, ids, dieAt } = task;
const kafka = clientOf(task.brokers);
let armed = false;

/** A line is written before the next thing happens: the parent must learn of it even if this process dies at once. */
const tell = (line: unknown) => new Promise((resolve) => process.stdout.write(`${JSON.stringify(line)}\n`, resolve));

function at(place: string): void {
  if (armed && place === dieAt) process.kill(process.pid, 'SIGKILL');
}

const dying = {
  consumer: (config: object) => kafka.consumer(config as never),
  admin: () => kafka.admin(),
  producer: (config: object) => {
    const producer = kafka.producer(config);
    return {
      connect: () => producer.connect(),
      disconnect: () => producer.disconnect(),
      transaction: async () => {
        const tx = await producer.transaction();
        return {
          abort: () => tx.abort(),
          async sendBatch(batch: never) {
            at('before the messages are sent');
            const sent = await tx.sendBatch(batch);
            at('after the messages are sent');
            return sent;
          },
          async sendOffsets(offsets: never) {
            await tx.sendOffsets(offsets);
            at('before the commit');
          },
          async commit() {
            const committing = tx.commit();
            if (armed && dieAt === 'while the commit is under way') setTimeout(() => at('while the commit is under way'), 2);
            await committing;
            at('after the commit');
          },
        };
      },
    };
  },
};

const store = kafkaTransactions({ kafka: dying, groupId, dedupLog, createPartitioner });
const { maxAttempts = 10, groupSize = 500 } = task;
const receiver = createReceiver(
  { scope: 'test', key: attribute('id'), store, cacheSize: 0, backoff: { firstMs: 0 }, maxAttempts, groupSize },
  async ({ id }: { id: string }, ctx) => {
    at('in the handler');
    await tell({ started: id, attempt: ctx.attempt });
    at(id);
    if (task.slowMs) await new Promise((resolve) => setTimeout(resolve, task.slowMs));
    ctx.tx.publish(output, { value: id, partition: 0 });
  },
);
await Promise.all(
  Array.from({ length: task.partitions ?? 1 }, async (_, partition) => {
    const { offset = '0' } = await store.assign({ topic: input, partition });
    armed = true;
    const all = deliveries(
      input,
      ids.slice(Number(offset)).map((id) => (partition ? `${id}.${partition}` : id)),
      { from: Number(offset), partition },
    );
    const done = new Set<Delivery>();
    let waiting = all;
    while (waiting.length > 0) {
      const verdicts = await processAll(receiver, input, waiting, partition, { all, done });
      for (const [i, verdict] of verdicts.entries()) {
        if (verdict.action !== 'retry') await tell({ id: waiting[i]!.message.headers['id'], verdict });
      }
      waiting = waiting.filter((_, i) => verdicts[i]!.action === 'retry');
    }
  }),
);
at('before the ack');
await receiver.stop();
await store.close();
process.exit(0);
