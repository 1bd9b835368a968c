import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { Kafka, logLevel } from 'kafkajs';
import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { proxiedKafka } from './proxied-kafka.ts';
import { ownService, service } from './services/index.ts';
import { unique } from './unique.ts';

const run = promisify(execFile);

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on('error', () => {});
  await client.connect();
  return client;
}

describe('a Redis of a test’s own', () => {
  it('is killed, and comes back on the same port, with its data', async () => {
    const redis = await ownService('redis', ['--appendonly', 'yes', '--appendfsync', 'always']);
    try {
      const call = async (...args: string[]) => (await run('redis-cli', ['-p', `${redis.address.port}`, ...args])).stdout.trim();
      expect(await call('debug', 'populate', '300000')).toBe('OK');
      expect(await call('bgrewriteaof')).toContain('started');
      await expect.poll(() => call('info', 'persistence'), { timeout: 20_000 }).toContain('aof_rewrite_in_progress:0');
      expect(await call('set', 'k', 'v')).toBe('OK');
      await redis.kill();
      await redis.restart();
      // The first question is answered: it has read its data.
      expect(await call('get', 'k')).toBe('v');
    } finally {
      await redis.stop();
    }
  });
});

describe('a Postgres of a test’s own', () => {
  it('answers nobody while it is paused, on connections that were open before either', async () => {
    const postgres = await ownService('postgres');
    const client = await connected(postgres.address.url);
    try {
      postgres.pause();
      let answered = false;
      const answer = client.query('select 1').then(() => (answered = true));
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(answered).toBe(false);
      postgres.resume();
      await answer;
    } finally {
      await client.end();
      await postgres.stop();
    }
  });

  it('is killed with all its sessions: what was not committed is not there when it is back, what was is', async () => {
    const postgres = await ownService('postgres');
    try {
      const client = await connected(postgres.address.url);
      await client.query('create table t (a int)');
      await client.query('insert into t values (1)');
      // It would end, and commit, long after the kill.
      const inFlight = client.query('insert into t select g from generate_series(1, 1000000) g').then(
        () => 'committed',
        () => 'broken',
      );
      const watcher = await connected(postgres.address.url);
      const active = async () =>
        (await watcher.query("select 1 from pg_stat_activity where state = 'active' and query like 'insert%'")).rowCount;
      await expect.poll(active).toBe(1);
      await postgres.kill();
      expect(await inFlight).toBe('broken');
      await postgres.restart();
      const after = await connected(postgres.address.url);
      expect((await after.query('select a from t')).rows).toEqual([{ a: 1 }]);
      await after.end();
    } finally {
      await postgres.stop();
    }
  });
});

describe('a Kafka of a test’s own', () => {
  it('is killed, and comes back on the same port, with its data; its clients go through a proxy that it advertises', async () => {
    const { server: broker, proxy } = await proxiedKafka();
    const kafka = new Kafka({
      brokers: [...broker.address.brokers],
      logLevel: logLevel.NOTHING,
      retry: { initialRetryTime: 20, retries: 20 },
    });
    const topic = unique('kept');
    const admin = kafka.admin();
    const producer = kafka.producer();
    try {
      await admin.connect();
      await producer.connect();
      await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] });
      // This reply is lost, and kafkajs sends again: without idempotence, twice.
      proxy.next({ fault: 'lose-reply', when: 'money' });
      await producer.send({ topic, acks: -1, messages: [{ value: 'money' }] });
      expect(proxy.injected['lose-reply']).toBe(1);
      await broker.kill();
      await broker.restart();
      expect(await admin.fetchTopicOffsets(topic)).toMatchObject([{ offset: '2' }]);
    } finally {
      await producer.disconnect();
      await admin.disconnect();
      await proxy.close();
      await broker.stop();
    }
  }, 60_000);
});

describe('a Redis Cluster', () => {
  it('of a test’s own is killed, and serves all slots when it is back', async () => {
    const { address, kill, restart, stop } = await ownService('redis-cluster', ['--appendonly', 'yes', '--appendfsync', 'always']);
    try {
      const ask = async <T>(act: (cluster: InstanceType<typeof Redis.Cluster>) => Promise<T>): Promise<T> => {
        const cluster = new Redis.Cluster([...address.nodes]);
        try {
          return await act(cluster);
        } finally {
          cluster.disconnect();
        }
      };
      // Enough for a slot of each node.
      const keys = Array.from({ length: 20 }, (_, i) => `key ${i}`);
      await ask((cluster) => Promise.all(keys.map((key) => cluster.set(key, key))));
      await kill();
      await restart();
      for (const { port } of address.nodes)
        expect((await run('redis-cli', ['-p', `${port}`, 'cluster', 'info'])).stdout).toContain('state:ok');
      expect(await ask((cluster) => Promise.all(keys.map((key) => cluster.get(key))))).toEqual(keys);
    } finally {
      await stop();
    }
  });
});

describe('DynamoDB Local', () => {
  it('answers as DynamoDB does', async () => {
    const { endpoint } = await service('dynamodb');
    const headers = {
      'content-type': 'application/x-amz-json-1.0',
      'x-amz-target': 'DynamoDB_20120810.ListTables',
      authorization: 'AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=b',
    };
    const response = await fetch(endpoint, { method: 'POST', headers, body: '{}' });
    expect(await response.json()).toHaveProperty('TableNames');
  });
});
