import { Redis } from 'ioredis';
import { afterEach, describe, expect, it } from 'vitest';
import { type RedisStoreOptions, redisStore } from '../../../adapters/stores/redis/index.ts';
import { asCompleted, ask, asParked, claimed, keyOf, single } from '../../../src/testing/clauses/kit.ts';
import { runClause, storeClauses } from '../../../src/testing/index.ts';
import { ownService } from '../../support/services/index.ts';
import { redisHarness } from './redis-harness.ts';

/* Servers of the tests' own: what they are set to, what becomes of them. */

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(settings: readonly string[] = []) {
  const server = await ownService('redis', settings);
  cleanups.push(() => server.stop());
  return { ...server, connect: () => connect(server.address.port) };
}

function connect(port: number): Redis {
  // Fails fast, as the tests take servers away.
  const client = new Redis(port, { maxRetriesPerRequest: 1, retryStrategy: () => 20 });
  client.on('error', () => {});
  cleanups.push(() => client.disconnect());
  return client;
}

async function primaryAndReplica() {
  const primary = await start(['--repl-diskless-sync-delay', '0']);
  const replica = await start(['--replicaof', '127.0.0.1', `${primary.address.port}`]);
  const clients = { primary: primary.connect(), replica: replica.connect() };
  await expect.poll(() => clients.replica.info('replication'), { timeout: 20_000 }).toContain('master_link_status:up');
  await clients.primary.set('written', 'once', 'PX', 1);
  await expect.poll(() => clients.primary.wait(1, 1_000), { timeout: 20_000 }).toBe(1);
  return { primary, replica, clients };
}

const claim = (store: ReturnType<typeof redisStore>, name: string | number, token = 't') => single(store).claim(name, token);
const storeError = (text: string | RegExp) => ({ code: 'store', message: expect.stringMatching(text) });

describe('redisStore looks at its server, and', () => {
  it('refuses one that would forget records when memory is full, unless that is allowed by name', async () => {
    const server = await start(['--maxmemory-policy', 'volatile-lru']);
    const client = server.connect();
    const store = redisStore(client);
    for (const call of [
      claim(store, 'a'),
      store.inspect(keyOf('a')),
      store.purge(1),
      store.settle([{ key: keyOf('a'), token: 't', retainMs: 1, ...asCompleted }]),
    ])
      await expect(call).rejects.toMatchObject(storeError(/maxmemory-policy to be noeviction, got volatile-lru/));
    expect(await claim(redisStore(client, { prefix: 'other', allowEviction: true }), 'a')).toMatchObject({ state: 'claimed' });
    await client.config('SET', 'maxmemory-policy', 'noeviction');
    expect(await claim(store, 'a'), 'looked at again').toMatchObject({ state: 'claimed' });
  });

  it('looks again when the server has restarted', async () => {
    const server = await start();
    const client = server.connect();
    const store = redisStore(client);
    await claim(store, 'a');
    await client.config('SET', 'maxmemory-policy', 'allkeys-lru');
    expect(await claim(store, 'b'), 'a change at run time is not seen').toMatchObject({ state: 'claimed' });
    await client.script('FLUSH');
    await expect(claim(store, 'c')).rejects.toMatchObject(storeError(/got allkeys-lru/));
  });

  it('tells how durable it is', async () => {
    for (const [settings, expected] of [
      [[], { appendOnly: 'off', snapshots: false, replicas: 0, evictionPolicy: 'noeviction' }],
      [['--appendonly', 'yes'], { appendOnly: 'everysec', snapshots: false }],
      [['--appendonly', 'yes', '--appendfsync', 'always', '--save', '60 1'], { appendOnly: 'always', snapshots: true }],
      [
        ['--appendonly', 'yes', '--appendfsync', 'no', '--maxmemory-policy', 'volatile-ttl'],
        { appendOnly: 'no', evictionPolicy: 'volatile-ttl' },
      ],
    ] as const) {
      const client = (await start(settings)).connect();
      expect(await redisStore(client).durability()).toMatchObject(expected);
    }
  });

  it('works where CONFIG is forbidden, and says that it does not know', async () => {
    const server = await start(['--appendonly', 'yes']);
    const admin = server.connect();
    await admin.acl('SETUSER', 'limited', 'on', 'nopass', '~*', '+@all', '-config');
    const limited = new Redis(server.address.port, { username: 'limited', password: 'x' });
    limited.on('error', () => {});
    cleanups.push(() => limited.disconnect());
    const store = redisStore(limited);
    expect(await claim(store, 'a')).toMatchObject({ state: 'claimed' });
    expect(await store.durability()).toEqual({ appendOnly: 'unknown', snapshots: undefined, replicas: 0, evictionPolicy: 'noeviction' });
  });

  it('refuses a replica, also for what a replica could answer', async () => {
    const { clients } = await primaryAndReplica();
    const store = redisStore(clients.primary);
    for (const name of ['completed', 'parked', 'held']) claimed(await claim(store, name));
    await single(store).settle('completed', 't', asCompleted);
    await single(store).settle('parked', 't', asParked);
    await clients.primary.wait(1, 5_000);
    const stale = redisStore(clients.replica);
    await expect(claim(stale, 'completed')).rejects.toMatchObject(storeError(/primary, got a server of role slave/));
    // It was a primary when it was looked at, and has been demoted since.
    const demoted = await start();
    const client = demoted.connect();
    const late = redisStore(client);
    claimed(await claim(late, 'held'));
    await single(late).settle('held', 't', asCompleted);
    claimed(await claim(late, 'running'));
    const verbs = [
      () => claim(late, 'held'),
      () => claim(late, 'new'),
      () => single(late).settle('held', 't', asCompleted),
      () => single(late).settle('other', 't', asCompleted),
      () => single(late).extend('running', 't'),
      () => late.inspect(keyOf('held')),
      () => late.forget(keyOf('nothing')),
    ];
    for (const verb of verbs) await verb();
    await client.replicaof('127.0.0.1', '1');
    for (const verb of verbs) await expect(verb()).rejects.toMatchObject(storeError(/READONLY|MASTERDOWN/));
    await client.replicaof('NO', 'ONE');
    expect(await claim(late, 'held')).toMatchObject({ state: 'completed' });
  });
});

describe('redisStore, when its server', () => {
  it('is full, gives no claims, but lets those be settled that it has given', async () => {
    const server = await start();
    const client = server.connect();
    const store = redisStore(client);
    for (let i = 0; i < 3; i++) claimed(await claim(store, `running ${i}`));
    await client.config('SET', 'maxmemory', '1');
    await expect(claim(store, 'new')).rejects.toMatchObject(storeError(/OOM/));
    expect(await store.inspect(keyOf('new'))).toBe(undefined);
    expect(await single(store).extend('running 0', 't')).toBe('ok');
    expect(await single(store).settle('running 0', 't', { as: 'completed', result: 'x'.repeat(1_000) })).toBe('ok');
    expect(await single(store).settle('running 1', 't', asParked)).toBe('ok');
    await client.script('FLUSH');
    expect(await single(store).settle('running 2', 't', asCompleted), 'the script is loaded again').toBe('ok');
    await client.config('SET', 'maxmemory', '0');
    expect(await claim(store, 'new')).toMatchObject({ state: 'claimed', attempt: 1 });
    expect(await claim(store, 'running 0')).toMatchObject({ state: 'completed', result: 'x'.repeat(1_000) });
  });

  it('has forgotten the scripts, sends them again, once for all calls that meet it', async () => {
    const server = await start();
    const client = server.connect();
    const store = redisStore(client);
    for (let round = 0; round < 3; round++) {
      const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => claim(store, `${round} ${i}`)));
      expect(answers.every(({ state }) => state === 'claimed')).toBe(true);
      expect(await single(store).extend(`${round} 0`, 't')).toBe('ok');
      expect(await single(store).settle(`${round} 0`, 't', asCompleted)).toBe('ok');
      await client.script('FLUSH');
    }
  });

  it('was flushed, goes on with greater fences', async () => {
    const server = await start();
    const client = server.connect();
    const store = redisStore(client, { shards: 4 });
    const fences: number[] = [];
    for (let round = 0; round < 5; round++) {
      fences.push(claimed(await claim(store, 'a')).fence);
      if (round % 2) await client.flushall();
      else await store.settle([{ key: keyOf('a'), token: 't', retainMs: 1_000, as: 'released', counted: true }]);
    }
    expect(fences).toEqual([...fences].sort((a, b) => a - b));
    expect(new Set(fences).size).toBe(5);
    expect(Number.isSafeInteger(fences[4]! * 4), 'room for centuries').toBe(true);
  });

  it('has its clock set back, does not let fences go back', async () => {
    const server = await start();
    const client = server.connect();
    const store = redisStore(client);
    const hourAhead = Date.now() * 1_000 + 3_600_000_000;
    claimed(await claim(store, 'x'));
    await client.set('{idempotent}:fence', String(hourAhead));
    expect(claimed(await claim(store, 'a')).fence).toBe(hourAhead + 1);
    expect(claimed(await claim(store, 'b')).fence).toBe(hourAhead + 2);
  });

  it('is killed and restarted, finds everything again: contract 14', async () => {
    const server = await start(['--appendonly', 'yes', '--appendfsync', 'always']);
    const clause = storeClauses.find(({ id }) => id === '14a')!;
    for (const options of [{}, { shards: 4 }, { compact: { retentionMs: 100_000 } }] as const) {
      const first = server.connect();
      await runClause(clause, () => {
        const harness = redisHarness(first, options);
        return {
          ...harness,
          async reopen() {
            await server.kill();
            await server.restart();
            return redisStore(server.connect(), { ...options, prefix: harness.prefix });
          },
          close: () => {},
        };
      });
    }
  });

  it('is killed in the middle of a load, has every claim that it answered, and each key once', async () => {
    const server = await start(['--appendonly', 'yes', '--appendfsync', 'always']);
    const client = server.connect();
    let connections = 0;
    client.on('connect', () => connections++);
    const store = redisStore(client);
    const told: { name: string; fence: number }[] = [];
    let stop = false;
    const load = async (worker: number) => {
      for (let i = 0; !stop; i++) {
        const names = Array.from({ length: 10 }, (_, n) => `${worker} ${i} ${n}`);
        try {
          const answers = await store.claim(names.map((name) => ask(name, 'mine', { leaseMs: 60_000 })));
          answers.forEach((answer, n) => told.push({ name: names[n]!, fence: claimed(answer).fence }));
        } catch (error) {
          expect(error).toMatchObject({ code: 'store' });
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      }
    };
    const workers = Array.from({ length: 8 }, (_, worker) => load(worker));
    for (let kill = 0; kill < 3; kill++) {
      const before = told.length;
      await expect.poll(() => told.length, { timeout: 20_000 }).toBeGreaterThan(before + 200);
      await server.kill();
      await server.restart();
    }
    stop = true;
    await Promise.all(workers);
    expect(connections, 'a run without kills shows nothing').toBeGreaterThan(3);
    const others = redisStore(server.connect());
    const answers = await others.claim(told.map(({ name }) => ask(name, 'other')));
    expect(answers.filter(({ state }) => state !== 'busy')).toEqual([]);
    const again = await others.claim(told.map(({ name }) => ask(name, 'mine', { leaseMs: 60_000 })));
    expect(again.map((answer) => claimed(answer).fence)).toEqual(told.map(({ fence }) => fence));
  });

  it('is loading its data, is not taken for empty', async () => {
    // Half a millisecond for each key, when it starts.
    const server = await start(['--key-load-delay', '500', '--loading-process-events-interval-bytes', '1024']);
    const names = Array.from({ length: 2_000 }, (_, i) => i);
    const first = server.connect();
    await redisStore(first).claim(names.map((i) => ask(i, 't', { leaseMs: 3_600_000, retainMs: 3_600_000 })));
    await first.save();
    await server.kill();
    // Resolves when all is loaded.
    const restarted = server.restart();
    const hasty = new Redis(server.address.port, { enableReadyCheck: false });
    hasty.on('error', () => {});
    cleanups.push(() => hasty.disconnect());
    const store = redisStore(hasty);
    const seen: string[] = [];
    await expect
      .poll(
        async () => {
          seen.push(await claim(store, seen.length, 'other').then(({ state }) => state, String));
          return seen.at(-1);
        },
        { timeout: 20_000, interval: 20 },
      )
      .toBe('busy');
    expect(seen.slice(0, -1).filter((each) => !each.includes('LOADING'))).toEqual([]);
    await restarted;
    expect(seen.length, 'it was asked while it was loading').toBeGreaterThan(5);
  });
});

describe('redisStore, told to wait for replicas,', () => {
  const open = (client: Redis, change: RedisStoreOptions = {}) => redisStore(client, { wait: { replicas: 1, timeoutMs: 200 }, ...change });

  it('answers what a replica has, and rejects what none has in time', async () => {
    const { primary, replica, clients } = await primaryAndReplica();
    const store = open(clients.primary);
    expect((await store.durability()).replicas).toBe(1);
    claimed(await claim(store, 'a'));
    expect(await clients.replica.keys('*:????????????????????????????????')).toHaveLength(1);
    expect(await single(store).settle('a', 't', asCompleted)).toBe('ok');
    claimed(await claim(store, 'b'));
    replica.pause();
    await expect(claim(store, 'c')).rejects.toMatchObject(
      storeError(/Expected 1 replicas to have it within 200 ms, got 0: the outcome is unknown/),
    );
    await expect(single(store).settle('b', 't', asCompleted)).rejects.toMatchObject(storeError(/unknown/));
    // It was written by another connection, and no replica has it; so whoever only reads it must not answer either.
    const unsafe = redisStore(primary.connect());
    claimed(await claim(unsafe, 'd'));
    expect(await single(unsafe).settle('d', 't', asCompleted)).toBe('ok');
    const fresh = open(primary.connect());
    await expect(claim(fresh, 'd'), 'a completed record').rejects.toMatchObject(storeError(/unknown/));
    await expect(single(fresh).settle('d', 't', asCompleted), 'a settle that is sent again').rejects.toMatchObject(storeError(/unknown/));
    replica.resume();
    await expect.poll(() => clients.primary.wait(1, 1_000), { timeout: 10_000 }).toBe(1);
    expect(await claim(fresh, 'd')).toMatchObject({ state: 'completed' });
    claimed(await claim(store, 'c'));
    expect(await single(store).settle('b', 't', asCompleted)).toBe('ok');
  });

  it('loses nothing that it answered when the replica takes over', async () => {
    const { primary, clients } = await primaryAndReplica();
    const store = open(clients.primary, { wait: { replicas: 1, timeoutMs: 5_000 } });
    const names = Array.from({ length: 500 }, (_, i) => i);
    for (const name of names) claimed(await claim(store, name));
    await primary.kill();
    await clients.replica.replicaof('NO', 'ONE');
    const after = redisStore(clients.replica);
    expect(new Set((await after.claim(names.map((name) => ask(name, 'x')))).map(({ state }) => state))).toEqual(new Set(['busy']));
  });

  it('and for the disk, answers what is on it where the server can tell (7.2 on), and rejects where it can not', async () => {
    const server = await start(['--appendonly', 'yes']);
    const client = server.connect();
    const version = /redis_version:(\d+)\.(\d+)/.exec(await client.info('server'))!;
    const store = redisStore(client, { wait: { replicas: 0, fsync: true, timeoutMs: 5_000 } });
    if (Number(version[1]) * 100 + Number(version[2]) < 702) {
      await expect(claim(store, 'a')).rejects.toMatchObject(storeError(/unknown command/));
      return;
    }
    claimed(await claim(store, 'a'));
    expect(await single(store).settle('a', 't', asCompleted)).toBe('ok');
    const demanding = redisStore(client, { wait: { replicas: 1, fsync: true, timeoutMs: 2_500 } });
    await expect(claim(demanding, 'b')).rejects.toMatchObject(storeError(/the disk of the primary and 1 replicas .* got 1 and 0/));
    await client.config('SET', 'appendonly', 'no');
    await expect(claim(store, 'c')).rejects.toMatchObject({ code: 'store' });
  });

  it('rejects if the connection was another one at the end', async () => {
    const { clients } = await primaryAndReplica();
    let calls = 0;
    const client = {
      // The second CLIENT INFO comes from another connection: ioredis reconnects and sends again by itself.
      call: async (command: string, args: (string | number | Buffer)[]) => {
        const reply = await clients.primary.call(command, args);
        return command === 'client' && ++calls % 2 === 0 ? String(reply).replace(/id=\d+/, 'id=987654') : reply;
      },
    };
    const store = redisStore(client, { wait: { replicas: 1, timeoutMs: 1_000 } });
    await expect(claim(store, 'a')).rejects.toMatchObject(storeError(/Expected one connection for a write and its WAIT/));
  });
});

it('errors of redisStore do not carry the arguments of a command, which are tokens and results', async () => {
  const client = (await start()).connect();
  const store = redisStore(client);
  await claim(store, 'first');
  await client.config('SET', 'maxmemory', '1');
  const error = await claim(store, 'a', 'a-secret-token').catch((thrown: Error) => thrown);
  const { inspect } = await import('node:util');
  expect(inspect(error, { depth: 9, showHidden: true })).toMatch(/OOM/);
  expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/a-secret-token/);
});
