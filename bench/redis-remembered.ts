/**
 * Compact mode with 10 million remembered ids: what each takes of the server's memory, and what their number costs. Takes about two minutes.
 * IDS=… for another number.
 */
import { randomBytes } from 'node:crypto';
import { redisStore } from 'idempotent-receiver/redis';
import { Redis } from 'ioredis';
import { bucketNamer, fieldsOf, layoutOf } from '../adapters/stores/redis/layout.ts';
import { recordFunctions } from '../adapters/stores/redis/lua-record.ts';
import { ownService } from '../test/support/services/index.ts';
import { type Bench, comparing, sideBySide } from './bench.ts';
import { storeAlone } from './redis.ts';

const retentionMs = 14 * 86_400_000;
const few = 10_000;
const many = Number(process.env['IDS'] ?? 10_000_000);
/** The same for both, as for a deployment that grows. */
const compact = { retentionMs, expectedIds: many };

async function serverWith(ids: number) {
  const server = await ownService('redis');
  const client = new Redis(server.address.url);
  const usedMemory = async () => Number(/used_memory:(\d+)/.exec(await client.info('memory'))![1]);
  const empty = await usedMemory();
  await remember(client, ids);
  const bytesPerId = Number((((await usedMemory()) - empty) / ids).toFixed(1));
  const close = async () => {
    client.disconnect();
    await server.stop();
  };
  return { client, bytesPerId, close };
}

/** Random ids, completed at regular times of the last retention, by the functions of the store's own scripts. */
async function remember(client: Redis, ids: number): Promise<void> {
  const { shards, compact: layout } = layoutOf('compact', 1, compact);
  const [shard] = shards as [string];
  const bucketOf = bucketNamer(layout!);
  const script = `#!lua
    ${recordFunctions(layout).replace(/local now = .*/, '$& - ARGV[3]')}
    for n = 0, #ARGV[2] / 12 - 1 do
      local field = sub(ARGV[2], n * 12 + 1, n * 12 + 12)
      remember(sub(ARGV[1], n * BUCKET + 1, n * BUCKET + BUCKET), field, field .. '123456')
    end`;
  const perCall = 4_000;
  for (let at = 0; at < ids; at += perCall) {
    const keys = randomBytes(24 * Math.min(perCall, ids - at))
      .toString('base64url')
      .match(/.{32}/g)!;
    const ageMs = Math.floor((1 - at / ids) * (retentionMs - 600_000));
    const args = [keys.map((key) => bucketOf(key, shard)).join(''), fieldsOf(keys.map((key) => ({ key }))), ageMs];
    await client.call('eval', [script, 2, `${shard}fence`, `${shard}absent`, ...args]);
  }
}

export const bench: Bench = async ({ seconds }) => {
  const small = await serverWith(few);
  const large = await serverWith(many);
  try {
    const contender = (client: Redis, ids: number) =>
      storeAlone(
        `compact store, ${ids.toLocaleString('en')} remembered ids, batches of 500`,
        redisStore(client, { prefix: 'compact', compact }),
        retentionMs,
      );
    const cases = await sideBySide([contender(small.client, few), contender(large.client, many)], { seconds });
    return {
      cases,
      aims: [
        { name: `bytes of server memory for each of ${many.toLocaleString('en')} remembered ids`, measured: large.bytesPerId, atMost: 40 },
        {
          name: `throughput with ${many.toLocaleString('en')} remembered ids against ${few.toLocaleString('en')}`,
          ...comparing(cases)(cases[1]!.name, cases[0]!.name),
          atLeast: 0.8,
        },
      ],
    };
  } finally {
    await small.close();
    await large.close();
  }
};
