import type { Journal } from '../../../src/effects/journal.ts';
import { expectNumber, refuseOption } from '../../../src/errors.ts';
import type { DedupStore, StoreAdmin } from '../../../src/store.ts';
import { adminVerbs } from './admin.ts';
import { runner, type WaitOptions } from './calls.ts';
import { connect, type RedisClient, storeError } from './client.ts';
import { journalVerbs } from './journal.ts';
import { type CompactOptions, layoutOf } from './layout.ts';
import { leasedVerbs } from './leased.ts';
import { type Scripts, scriptsFor } from './scripts.ts';
import { checkServers, durabilityOf, type RedisDurability } from './server.ts';

export type { WaitOptions } from './calls.ts';
export type { IoredisClient, NodeRedisClient, RedisClient } from './client.ts';
export type { CompactOptions } from './layout.ts';
export type { RedisDurability } from './server.ts';

/** Options of {@link redisStore}. */
export interface RedisStoreOptions {
  /** The store's keys begin with it, in braces. Default: `idempotent`. */
  readonly prefix?: string;
  /**
   * Into how many hash slots records are spread: a power of 2, at most 256. A batch is one call for each shard that it touches.
   * Default: 1, and 16 on a Redis Cluster.
   */
  readonly shards?: number;
  /** Remembers completed records without results in less than 40 bytes each, instead of 250. */
  readonly compact?: CompactOptions;
  /** Accepts a `maxmemory-policy` under which Redis forgets records when memory is full: their messages are handled again. Default: false. */
  readonly allowEviction?: boolean;
  /** Waits for replicas, or for the disk, before it answers. Too few in time, and the call rejects: its outcome is unknown. Not for Redis Cluster or a pool. */
  readonly wait?: WaitOptions;
}

/** What the store can tell of its server beside its records. */
export interface RedisServer {
  /** Reads how durable the server is now. It may be told otherwise, or fail over to one that was, at any time. */
  durability(): Promise<RedisDurability>;
}

/**
 * A store in Redis 7 or Valkey, for any number of processes. `client` is a ready client of ioredis, a `Cluster` of ioredis, or a client of
 * node-redis; it may be used for other things as well. Time is the server's.
 *
 * Redis answers before what it has written is safe: at `appendfsync everysec` a crash of the server can lose the last second, and a
 * failover can lose more, so a message whose record was lost is handled again. See `durability` and `wait`.
 *
 * All processes that share a prefix need the same `shards` and `compact`, except for `resendMs`; others are refused.
 * `purge` answers 0, because Redis deletes expired records by itself. `stats` looks at every key of the server.
 *
 * The first call looks at the server. Calls reject with a ReceiverError `store` if it can't be used.
 * @throws ReceiverError `invalid-option`
 */
export function redisStore(client: RedisClient, options: RedisStoreOptions = {}): DedupStore & Journal & StoreAdmin & RedisServer {
  return openStore(client, options);
}

/** The same. Tests break `scripts` on purpose. */
export function openStore(
  client: RedisClient,
  options: RedisStoreOptions,
  scripts?: Scripts,
): DedupStore & Journal & StoreAdmin & RedisServer {
  const connection = connect(client);
  const { prefix = 'idempotent', shards = connection.isCluster ? 16 : 1, compact, allowEviction = false, wait } = options;
  const layout = layoutOf(prefix, shards, compact);
  if (typeof allowEviction !== 'boolean') refuseOption('allowEviction', 'true or false', allowEviction);
  if (wait) {
    if (connection.isCluster) refuseOption('wait', 'left out on a Redis Cluster', wait);
    // WAIT is about what its own connection has written, and a pool may send it over another one.
    if (connection.isPool) refuseOption('wait', 'left out with a pool: use a single client', wait);
    expectNumber('wait.replicas', wait.replicas, { atLeast: wait.fsync ? 0 : 1, atMost: 100, integer: true });
    expectNumber('wait.timeoutMs', wait.timeoutMs, { atLeast: 1, atMost: 600_000, integer: true });
  }
  const run = runner(connection, () => checkServers(connection, layout, allowEviction), wait);
  const known = scripts ?? scriptsFor(layout.compact);
  return {
    ...leasedVerbs(layout, known, run),
    ...adminVerbs(connection, layout, known, run),
    ...journalVerbs(layout, known, run),
    durability: () =>
      durabilityOf(connection, layout).catch((cause) => {
        throw storeError('its durability was read', cause);
      }),
  };
}
