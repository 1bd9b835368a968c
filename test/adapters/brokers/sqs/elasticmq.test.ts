import { DatabaseSync } from 'node:sqlite';
import type { SQS } from '@aws-sdk/client-sqs';
import { beforeAll, expect, it } from 'vitest';
import { sqsSender } from '../../../../adapters/brokers/sqs/index.ts';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { sqliteStore } from '../../../../adapters/stores/sqlite/index.ts';
import { attribute, createReceiver } from '../../../../src/index.ts';
import { service } from '../../../support/services/index.ts';
import { atEnd, count, polling, queues, sqs, until } from './http.ts';

/**
 * FIFO queues as a server of its own. Where ElasticMQ differs from AWS: a delete after the visibility has ended succeeds until somebody else has
 * received the message (AWS: refused at once); a repeated ReceiveRequestAttemptId gives new handles and counts a receive (AWS: the same
 * handles); there is no MessageRetentionPeriod; redriven messages keep their receive count. The tests follow AWS, and say where that matters.
 */
let endpoint: string;
beforeAll(async () => {
  ({ endpoint } = await service('elasticmq'));
});

interface Step {
  group: string;
  number: number;
}

const sender = (client: SQS, queueUrl: string) =>
  sqsSender<Step>({ client, queueUrl, key: ({ group, number }) => `${group}:${number}`, group: ({ group }) => group });

it('two workers on one store take every message of every group once and in order, with failures in between', async () => {
  const client = sqs(endpoint);
  // Each receive of a failing head brings its group's tail too, and counts for all of them: three would move healthy messages away.
  const { url } = await queues(client, 'groups.fifo', { maxReceiveCount: '20' });
  const steps = Array.from({ length: 60 }, (_, i) => ({ group: `g${i % 6}`, number: Math.floor(i / 6) }));
  expect((await sender(client, url).send(steps)).every(({ state }) => state === 'sent')).toBe(true);
  const store = memoryStore();
  const done: Step[] = [];
  const failed = new Set<string>();
  for (const scope of ['worker', 'worker']) {
    const receiver = createReceiver(
      { scope, key: attribute('idempotency-key'), store, backoff: { firstMs: 10, maxMs: 10 } },
      async (payload: any) => {
        const step: Step = payload;
        await new Promise((resolve) => setTimeout(resolve, 1));
        // Two messages of each group fail the first time: the group must wait for them.
        const name = `${step.group}:${step.number}`;
        if ((step.number === 1 || step.number === 6) && !failed.has(name)) {
          failed.add(name);
          throw new Error('not now');
        }
        done.push(step);
      },
    );
    polling({ client: sqs(endpoint), queueUrl: url, receiver });
  }
  await until(async () => done.length >= 60 && (await count(client, url)) === 0, 20_000);
  expect(failed.size).toBe(12);
  for (let g = 0; g < 6; g++) {
    expect(done.filter(({ group }) => group === `g${g}`).map(({ number }) => number)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  }
}, 30_000);

it('in a transaction with SQLite: effects of a group are committed once, in order, and the queue is empty', async () => {
  const client = sqs(endpoint);
  const { url } = await queues(client, 'ledger.fifo');
  const db = new DatabaseSync(':memory:');
  atEnd(() => db.close());
  db.exec('create table ledger (step text)');
  const receiver = createReceiver({ scope: 'ledger', key: attribute('idempotency-key'), store: sqliteStore(db) }, (payload: any, ctx) => {
    ctx.tx.prepare('insert into ledger values (?)').run(`${payload.group}:${payload.number}`);
  });
  const steps = Array.from({ length: 20 }, (_, number) => ({ group: 'g', number }));
  await sender(client, url).send(steps);
  polling({ client, queueUrl: url, receiver });
  await until(async () => (await count(client, url)) === 0);
  expect(
    db
      .prepare('select step from ledger order by rowid')
      .all()
      .map(({ step }) => step),
  ).toEqual(steps.map(({ number }) => `g:${number}`));
});

it('a delete whose handle has become stale is refused and not repeated; the new delivery is known and acked', async () => {
  const client = sqs(endpoint);
  const { url } = await queues(client, 'stale.fifo');
  const answers: { Failed?: { Code?: string }[] }[] = [];
  let free!: () => void;
  const redelivered = new Promise<void>((resolve) => (free = resolve));
  client.middlewareStack.add(
    (next, context) => async (args) => {
      if (context.commandName !== 'DeleteMessageBatchCommand') return next(args);
      if (answers.length === 0) await redelivered;
      const result = await next(args);
      answers.push(result.output as never);
      return result;
    },
    { step: 'initialize' },
  );
  let runs = 0;
  let duplicates = 0;
  const receiver = createReceiver(
    { scope: 's', key: attribute('idempotency-key'), store: memoryStore(), leaseMs: 900, on: { duplicate: () => (duplicates++, free()) } },
    () => void runs++,
  );
  // Visibility counts in real seconds, and that it ends is the subject: this test takes a little more than one.
  const { errors } = polling({ client, queueUrl: url, receiver, visibilityMs: 1_000 });
  await sender(client, url).send([{ group: 'g', number: 1 }]);
  await until(async () => answers.length === 2 && (await count(client, url)) === 0);
  expect(answers[0]!.Failed).toMatchObject([{ Code: 'ReceiptHandleIsInvalid' }]);
  expect({ runs, duplicates, errors }).toEqual({ runs: 1, duplicates: 1, errors: [] });
});

it('a receive whose answer is lost is answered again at once, and its group does not wait for the visibility to end', async () => {
  const client = sqs(endpoint);
  const { url } = await queues(client, 'lost.fifo');
  let lost = 0;
  client.middlewareStack.add(
    (next, context) => async (args) => {
      const result = await next(args);
      if (context.commandName !== 'ReceiveMessageCommand' || lost > 0 || !(result.output as { Messages?: unknown }).Messages) return result;
      lost++;
      throw Object.assign(new Error('reset'), { code: 'ECONNRESET' });
    },
    { step: 'initialize' },
  );
  const seen: number[] = [];
  const receiver = createReceiver(
    { scope: 's', key: attribute('idempotency-key'), store: memoryStore() },
    (step: any) => void seen.push(step.number),
  );
  await sender(client, url).send([1, 2, 3].map((number) => ({ group: 'g', number })));
  const startedAt = performance.now();
  polling({ client, queueUrl: url, receiver });
  await until(async () => (await count(client, url)) === 0);
  // It would end after 30 s.
  expect(performance.now() - startedAt).toBeLessThan(15_000);
  expect(lost).toBe(1);
  expect(seen).toEqual([1, 2, 3]);
});
