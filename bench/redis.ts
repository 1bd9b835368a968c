/**
 * What deduplication costs on Redis: the same messages (parse an order, add it up) claimed and completed in several ways on one server, with
 * so many in flight, or in batches of 500. Nothing is on disk, so that the figures are those of the code and not of the disk.
 */
import { createHash, randomUUID } from 'node:crypto';
import { IdempotencyConfig, makeIdempotent } from '@aws-lambda-powertools/idempotency';
import { CachePersistenceLayer } from '@aws-lambda-powertools/idempotency/cache';
import { Idempotency } from '@node-idempotency/core';
import { type Ask, attribute, createReceiver, type Delivery, type End } from 'idempotent-receiver';
import { redisStore } from 'idempotent-receiver/redis';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { coalesce } from '../src/coalesce.ts';
import { ownService } from '../test/support/services/index.ts';
import { type Bench, type Contender, comparing, sideBySide } from './bench.ts';

const batchSize = 500;
const retainMs = 86_400_000;
const leaseMs = 30_000;

export interface Order {
  readonly id: string;
  readonly amount: number;
}

/** A new message each time. */
export function orders(): () => Delivery & { readonly body: string; readonly id: string } {
  const run = randomUUID();
  let made = 0;
  return () => {
    const id = `order-${run}-${made++}`;
    const body = JSON.stringify({ id, amount: 1 + (made % 100), currency: 'EUR', lines: [{ sku: 'A-1', quantity: 2 }] });
    return { id, body, message: { id, body, headers: { 'message-id': id } } };
  };
}

/** The work itself, the same in every case. */
export let total = 0;
function add({ amount }: Order): void {
  total += amount;
}

/** Keeps so many calls in flight. */
async function inFlight(calls: number, each: () => Promise<unknown>): Promise<number> {
  let left = Math.max(100, calls * 8);
  const messages = left;
  const worker = async () => {
    while (left-- > 0) await each();
  };
  await Promise.all(Array.from({ length: calls }, worker));
  return messages;
}

function throughReceiver(name: string, client: Redis, calls: number): Contender {
  const next = orders();
  const store = redisStore(client, { prefix: `receiver-${calls}` });
  // As many handlers at once as the others have.
  const options = { store, scope: 'bench', key: attribute('message-id'), retentionMs: retainMs, concurrency: calls };
  const receiver = createReceiver(options, (order: Order) => add(order));
  const handled = (verdicts: readonly { readonly action: string; readonly outcome?: unknown }[]) => {
    const bad = verdicts.find((verdict) => verdict.action !== 'ack' || verdict.outcome !== 'completed');
    if (bad) throw new Error(`Expected every message to be handled, got ${JSON.stringify(bad)}`);
    return verdicts.length;
  };
  return {
    name,
    run: async () =>
      calls === batchSize
        ? handled(await receiver.process(Array.from({ length: batchSize }, next)))
        : inFlight(calls, async () => handled(await receiver.process([next()]))),
    close: () => {},
  };
}

type Store = ReturnType<typeof redisStore>;

/** What the store is asked for a new message. A digest of the payload is the receiver's price; here it is a part of the key's. */
function asker(retainMs: number): () => Ask {
  const next = orders();
  return () => {
    const { id, body } = next();
    add(JSON.parse(body) as Order);
    const key = digest(id);
    return { key, fingerprint: key.slice(0, 22), token: randomUUID(), leaseMs, retainMs };
  };
}

const completed = ({ key, token, retainMs }: Ask): End => ({ key, token, retainMs, as: 'completed' });

/** The store alone, without a receiver: a batch of claims, a batch of settles. */
export function storeAlone(name: string, store: Store, retainMs: number): Contender {
  const next = asker(retainMs);
  return {
    name,
    async run() {
      const asks = Array.from({ length: batchSize }, next);
      const answers = await store.claim(asks);
      if (answers.some(({ state }) => state !== 'claimed')) throw new Error('Expected every message to be new');
      const settled = await store.settle(asks.map(completed));
      if (settled.some((each) => each !== 'ok')) throw new Error('Expected every claim to be settled');
      return batchSize;
    },
    close: () => {},
  };
}

/** The store alone, called for one message after another, whose concurrent calls are gathered into batches as the receiver does it. */
function storeInFlight(name: string, store: Store, calls: number): Contender {
  const next = asker(retainMs);
  const claim = coalesce(store.claim, { maxBatch: 1_000 });
  const settle = coalesce(store.settle, { maxBatch: 1_000 });
  return {
    name,
    run: () =>
      inFlight(calls, async () => {
        const ask = next();
        const [answer] = await claim([ask]);
        if (answer!.state !== 'claimed') throw new Error('Expected every message to be new');
        const [settled] = await settle([completed(ask)]);
        if (settled !== 'ok') throw new Error('Expected every claim to be settled');
      }),
    close: () => {},
  };
}

const digest = (text: string) => createHash('sha256').update(text).digest('base64url').slice(0, 32);

/**
 * The least that a claim with a token can do by hand: the id's digest as key, a lease and a comparison of tokens. No fence, no attempts, no
 * fingerprint, no results, and what is there is not told apart.
 */
function byHand(client: Redis): Contender {
  const next = orders();
  const claim = client.script(
    'LOAD',
    "local n = 0 for i = 1, #KEYS do if redis.call('SET', KEYS[i], ARGV[i + 1], 'NX', 'PX', ARGV[1]) then n = n + 1 end end return n",
  ) as Promise<string>;
  const complete = client.script(
    'LOAD',
    `local n = 0 for i = 1, #KEYS do
       if redis.call('GET', KEYS[i]) == ARGV[i + 1] then redis.call('SET', KEYS[i], 'done', 'PX', ARGV[1]) n = n + 1 end
     end return n`,
  ) as Promise<string>;
  return {
    name: `two scripts by hand, batches of ${batchSize}`,
    async run() {
      const keys: string[] = [];
      const tokens: string[] = [];
      for (let i = 0; i < batchSize; i++) {
        const { id, body } = next();
        add(JSON.parse(body) as Order);
        keys.push(`hand:${digest(id)}`);
        tokens.push(randomUUID());
      }
      const claimed = await client.evalsha(await claim, batchSize, ...keys, leaseMs, ...tokens);
      const completed = await client.evalsha(await complete, batchSize, ...keys, retainMs, ...tokens);
      if (claimed !== batchSize || completed !== batchSize) throw new Error('Expected every message to be new');
      return batchSize;
    },
    close: () => {},
  };
}

function powertools(name: string, client: object, calls: number): Contender {
  const next = orders();
  const config = new IdempotencyConfig({ eventKeyJmesPath: 'id', expiresAfterSeconds: retainMs / 1_000 });
  // Without a context it has no lease.
  config.registerLambdaContext({ getRemainingTimeInMillis: () => leaseMs } as Parameters<IdempotencyConfig['registerLambdaContext']>[0]);
  const persistenceStore = new CachePersistenceLayer({ client: client as never });
  const handle = makeIdempotent(
    async (order: Order) => {
      add(order);
      return null;
    },
    { persistenceStore, config, keyPrefix: `powertools-${calls}` },
  );
  return {
    name,
    run: () => inFlight(calls, () => handle(JSON.parse(next().body) as Order)),
    close: () => {},
  };
}

function nodeIdempotency(name: string, client: Redis, calls: number): Contender {
  const next = orders();
  const idempotency = new Idempotency(
    {
      connect: async () => {},
      disconnect: async () => {},
      setIfNotExists: async (key, value, options) => (await client.set(key, value, 'PX', options?.ttl ?? retainMs, 'NX')) === 'OK',
      set: async (key, value, options) => void (await client.set(key, value, 'PX', options.ttl ?? retainMs)),
      get: async (key) => (await client.get(key)) ?? undefined,
    },
    { cacheTTLMS: retainMs, cacheKeyPrefix: `node-idempotency-${calls}` },
  );
  return {
    name,
    run: () =>
      inFlight(calls, async () => {
        const order = JSON.parse(next().body) as Order & Record<string, unknown>;
        const request = { headers: { 'idempotency-key': order.id }, path: '/bench', body: order, method: 'POST' };
        if ((await idempotency.onRequest(request)) !== undefined) throw new Error('Expected every message to be new');
        add(order);
        await idempotency.onResponse(request, { body: null });
      }),
    close: () => {},
  };
}

export const bench: Bench = async ({ seconds }) => {
  const server = await ownService('redis');
  const client = new Redis(server.address.url);
  const nodeRedis = createClient({ url: server.address.url });
  await nodeRedis.connect();
  try {
    const hand = byHand(client);
    const alone = storeAlone(`store alone, batches of ${batchSize}`, redisStore(client, { prefix: 'alone' }), retainMs);
    const compact = storeAlone(
      `store alone, compact, batches of ${batchSize}`,
      redisStore(client, { prefix: 'compact', compact: { retentionMs: retainMs } }),
      retainMs,
    );
    const received = throughReceiver(`receiver, batches of ${batchSize}`, client, batchSize);
    const flights = [1, 64, 512].map((calls) => ({
      store: storeInFlight(`store alone, ${calls} in flight`, redisStore(client, { prefix: `flight-${calls}` }), calls),
      receiver: throughReceiver(`receiver, ${calls} in flight`, client, calls),
      powertools: powertools(`Powertools, ${calls} in flight`, nodeRedis, calls),
      nodeIdempotency: nodeIdempotency(`@node-idempotency/core, ${calls} in flight`, client, calls),
    }));
    const contenders = [hand, alone, compact, received, ...flights.flatMap((each) => Object.values(each))];
    const cases = await sideBySide(contenders, { seconds });
    const compare = comparing(cases);
    const most = flights.at(-1)!;
    return {
      cases,
      aims: [
        { name: 'the store against two scripts by hand, in batches of 500', ...compare(alone.name, hand.name), atLeast: 0.8 },
        { name: 'the store against Powertools, 512 in flight', ...compare(most.store.name, most.powertools.name), atLeast: 5 },
        { name: 'the receiver against Powertools, 512 in flight', ...compare(most.receiver.name, most.powertools.name), atLeast: 5 },
      ],
    };
  } finally {
    client.disconnect();
    nodeRedis.destroy();
    await server.stop();
  }
};
