import type { Cluster, Redis } from 'ioredis';
import { openStore, type RedisClient, type RedisStoreOptions } from '../../../adapters/stores/redis/index.ts';
import type { Scripts } from '../../../adapters/stores/redis/scripts.ts';
import type { Journal } from '../../../src/effects/journal.ts';
import type { DedupStore, StoreAdmin } from '../../../src/store.ts';
import { retainMs } from '../../../src/testing/clauses/kit.ts';
import type { StoreHarness } from '../../../src/testing/index.ts';
import { unique } from '../../support/unique.ts';

/** Clauses that say what Redis does by itself. */
export const skip = ['6c', '12a', '12b'].map((clause) => ({
  clause,
  reason: 'Redis deletes expired records by itself, and purge answers 0: redis.test.ts shows what purge does instead',
}));

/** The servers behind a client. */
export const nodesOf = (client: Redis | Cluster): readonly Redis[] => ('nodes' in client ? client.nodes('master') : [client]);

/*
 * The clock of Redis can't be moved, so its data are made older: times in records, in the index of parked ones and in buckets, and what is left
 * to live of each key.
 */
const olderScript = `
local ms = tonumber(ARGV[2])
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local expires = redis.call('PEXPIRETIME', key)
  local rest = string.match(key, '^{.*}:(.*)$')
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' and #rest == 32 then
    local value = redis.call('GET', key)
    local writtenAt, leaseUntil = struct.unpack('>I6I6', value, 2)
    redis.call('SET', key, string.sub(value, 1, 1) .. struct.pack('>I6I6', writtenAt - ms, leaseUntil - ms) .. string.sub(value, 14), 'KEEPTTL')
  elseif kind == 'zset' then
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -ms, member) end
  elseif kind == 'hash' and string.sub(rest, 1, 1) ~= '+' then
    local entries = redis.call('HGETALL', key)
    for i = 1, #entries, 2 do
      redis.call('HSET', key, entries[i], struct.pack('>I5', struct.unpack('>I5', entries[i + 1]) - ms) .. string.sub(entries[i + 1], 6))
    end
  end
  if expires > 0 then redis.call('PEXPIREAT', key, string.format('%.0f', expires - ms)) end
end`;

export async function makeOlder(client: Redis | Cluster, prefix: string, ms: number): Promise<void> {
  for (const node of nodesOf(client)) await node.eval(olderScript, 0, `{${prefix}[}/]*`, ms);
}

export interface RedisHarnessOptions extends Omit<RedisStoreOptions, 'prefix'> {
  readonly scripts?: Scripts | undefined;
  /** The store's client, if it is not the one that the harness uses. */
  readonly client?: RedisClient;
}

export interface RedisHarness extends StoreHarness {
  readonly prefix: string;
  readonly store: DedupStore & Journal & StoreAdmin;
  /** Another store of the same records, on the same client or another one. */
  beside(change?: RedisStoreOptions, client?: RedisClient): DedupStore & StoreAdmin;
}

/** A store under a prefix of its own, on a client that stays open. */
export function redisHarness(client: Redis | Cluster, { scripts, client: own, ...options }: RedisHarnessOptions = {}): RedisHarness {
  const prefix = unique('redis');
  const pattern = `{${prefix}[}/]*`;
  const opened: (Redis | Cluster)[] = [];
  let damage = 0;
  const keysOf = async (node: Redis) => node.keys(pattern);
  return {
    prefix,
    store: openStore(own ?? (client as RedisClient), { ...options, prefix }, scripts),
    beside: (change, other) => openStore(other ?? own ?? (client as RedisClient), { ...options, ...change, prefix }, scripts),
    precisionMs: 2_000,
    elapse: (ms) => makeOlder(client, prefix, ms),
    async another() {
      const other = 'nodes' in client ? client.duplicate() : client.duplicate();
      opened.push(other);
      return openStore(other as RedisClient, { ...options, prefix }, scripts);
    },
    async corrupt(key) {
      const kinds: ((node: Redis, name: string) => Promise<unknown>)[] = [
        (node, name) => node.set(name, 'garbage', 'PX', retainMs),
        (node, name) => node.rpush(name, 'another type'),
        async (node, name) => node.set(name, Buffer.concat([Buffer.from('c'), Buffer.alloc(100)]), 'PX', retainMs),
      ];
      for (const node of nodesOf(client)) {
        for (const name of await keysOf(node)) {
          if (name.endsWith(key)) {
            await node.del(name);
            await kinds[damage++ % kinds.length]!(node, name);
          }
          if (/:~[^:]*$/.test(name)) for (const field of await node.hkeysBuffer(name)) await node.hset(name, field, 'xx');
        }
      }
    },
    async close() {
      for (const each of opened) each.disconnect();
      for (const node of nodesOf(client)) for (const name of await keysOf(node)) await node.del(name);
    },
  };
}
