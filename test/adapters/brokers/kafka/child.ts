/**
 * A consumer in a process of its own, which dies or stops where it is told to. Its argument is a `ChildTask` as JSON; it prints `joined` when it has
 * partitions, `here` when it has got to its border, and lines of its own handler.
 */
import '../../../support/ends-with-parent.ts';
import { existsSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';
import { Kafka, logLevel } from 'kafkajs';
import { kafka, watermark, watermarkOnly } from '../../../../adapters/brokers/kafka/index.ts';
import { sqliteStore, sqliteWatermarks } from '../../../../adapters/stores/sqlite/index.ts';
import { createReceiver, header } from '../../../../src/index.ts';

export interface ChildTask {
  readonly brokers: readonly string[];
  readonly topic: string;
  readonly groupId: string;
  /** SQLite file with the table `effects`. */
  readonly file: string;
  /** `plain`: kafkajs alone, as its README shows. */
  readonly mode: 'records' | 'watermark' | 'watermark only' | 'leased' | 'plain';
  /** Where SIGKILL comes, once in the life of the file `once`. */
  readonly kill?: Border | undefined;
  /** Where it says `here` and waits for a line. */
  readonly wait?: Border | undefined;
  /** The message that it is about; any, if it is left out. */
  readonly id?: string;
  readonly once?: string;
  readonly sessionTimeout?: number;
  readonly maxAttempts?: number;
  readonly handlerMs?: number;
  /** The handler throws once for each so many messages. */
  readonly throwEvery?: number;
}

export type Border = 'in the handler' | 'after the effect' | 'before the commit' | 'after the commit' | 'after the offset';

const task = JSON.parse(process.argv[2]!) as ChildTask;
const db = new DatabaseSync(task.file);
db.exec('pragma busy_timeout = 10000');
const say = (line: string) => process.stdout.write(`${line}\n`);

async function at(border: Border, ...ids: string[]): Promise<void> {
  if (task.id !== undefined && ids.length > 0 && !ids.includes(task.id)) return;
  if (task.kill === border && !(task.once && existsSync(task.once))) {
    if (task.once) writeFileSync(task.once, '');
    process.kill(process.pid, 'SIGKILL');
  }
  if (task.wait === border && !(task.once && existsSync(task.once))) {
    if (task.once) writeFileSync(task.once, '');
    say('here');
    await new Promise((resolve) => process.stdin.once('data', resolve));
  }
}

const client = new Kafka({ brokers: [...task.brokers], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 20 } });
const consumer = client.consumer({
  groupId: task.groupId,
  sessionTimeout: task.sessionTimeout ?? 1_500,
  rebalanceTimeout: 5_000,
  heartbeatInterval: 200,
  maxWaitTimeInMs: 50,
  maxBytesPerPartition: 20_000,
});
consumer.on('consumer.group_join', ({ payload }) => say(`joined ${JSON.stringify(payload.memberAssignment)}`));
consumer.on('consumer.crash', ({ payload }) => say(`crash ${payload.restart} ${payload.error.message}`));
consumer.on('consumer.commit_offsets', () => void at('after the offset'));

const base = sqliteStore(db, { lockTimeoutMs: 20_000 });
/** Of the unit that is open. */
let handled: string[] = [];
const thrown = new Set<string>();
const store = {
  ...base,
  unit: ((work) =>
    base
      .unit(async (unit) => {
        handled = [];
        const done = await work(unit);
        await at('before the commit', ...handled);
        return done;
      })
      .then(async (done) => {
        await at('after the commit', ...handled);
        return done;
      })) as typeof base.unit,
};

async function effect(tx: DatabaseSync, { id, key, n }: { id: string; key: string; n: number }): Promise<void> {
  handled.push(id);
  if (task.throwEvery && n % task.throwEvery === 0 && !thrown.has(id)) {
    thrown.add(id);
    say('throw');
    throw new Error('now and then');
  }
  await at('in the handler', id);
  if (task.handlerMs) await pause(task.handlerMs);
  tx.prepare('insert into effects (id, key, n, pid) values (?, ?, ?, ?)').run(id, key, n, process.pid);
  await at('after the effect', id);
}

await consumer.connect();
await consumer.subscribe({ topics: [task.topic], fromBeginning: true });

if (task.mode === 'plain') {
  // What kafkajs's README shows.
  await consumer.run({
    eachMessage: async ({ message }) => effect(db, JSON.parse(message.value!.toString())),
  });
  process.once('SIGTERM', () => void consumer.disconnect().then(() => process.exit(0)));
} else {
  const only = watermarkOnly({ store, rows: sqliteWatermarks() });
  const marked = watermark({ store, rows: sqliteWatermarks() });
  const options = {
    scope: 'child',
    key: header('message-id'),
    backoff: { firstMs: 100 },
    maxAttempts: task.maxAttempts ?? 10,
    leaseMs: 1_000,
    cacheSize: 0,
  };
  const receiver =
    task.mode === 'leased'
      ? createReceiver({ ...options, store, guarantee: 'leased' }, (payload: any) => effect(db, payload))
      : task.mode === 'watermark only'
        ? createReceiver({ ...options, store: only }, (payload: any, { tx }) => effect(tx as DatabaseSync, payload))
        : createReceiver({ ...options, store: task.mode === 'watermark' ? marked : store }, (payload: any, { tx }) =>
            effect(tx as DatabaseSync, payload),
          );
  const adapter = kafka(receiver, {
    consumer,
    deadLetter: ({ record, reason }) => say(`dead ${record.headers['message-id']} ${reason}`),
    ...(task.mode === 'watermark' && { watermark: marked }),
    ...(task.mode === 'watermark only' && { watermark: only }),
    onError: (error, during) => say(`error ${during} ${error}`),
  });
  await consumer.run(adapter.run());
  process.once('SIGTERM', () => {
    void adapter
      .stop()
      .then(() => consumer.disconnect())
      .then(() => process.exit(0));
  });
}
