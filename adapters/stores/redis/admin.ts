import { ReceiverError } from '../../../src/errors.ts';
import type { DedupStore, Key, RecordView, StoreAdmin } from '../../../src/store.ts';
import type { Run } from './calls.ts';
import { type Argument, type Connection, type Send, storeError } from './client.ts';
import { bucketNamer, expectKey, fieldsOf, type Layout, shardOf } from './layout.ts';
import type { Script, Scripts } from './scripts.ts';

/** How many keys are looked at in one call. */
const page = 500;

const stateNames: Readonly<Record<string, RecordView['state']>> = {
  c: 'claimed',
  r: 'released',
  p: 'parked',
  d: 'completed',
  D: 'completed',
  k: 'completed',
};

export function adminVerbs(connection: Connection, layout: Layout, scripts: Scripts, run: Run): StoreAdmin & Pick<DedupStore, 'purge'> {
  const { shards } = layout;
  const shardNameOf = (key: Key) => shards[shardOf(expectKey(key), shards.length)]!;
  const bucketOf = layout.compact && bucketNamer(layout.compact);
  /** Where the sweep of each shard's index of parked records goes on. */
  const swept = shards.map(() => 0);

  async function one(script: Script, key: Key, doing: string): Promise<boolean> {
    const shard = shardNameOf(key);
    return Number(await run(script, shard, withPlaces(shard, [key]), doing)) === 1;
  }

  function withPlaces(shard: string, keys: readonly Key[]): Argument[] {
    const text = keys.join('');
    return bucketOf ? [text, keys.map((key) => bucketOf(key, shard)).join(''), fieldsOf(keys.map((key) => ({ key })))] : [text];
  }

  /** The records of some keys of a shard; those that are not there are left out. */
  async function views(shard: string, keys: readonly Key[]): Promise<RecordView[]> {
    const reply = (await run(scripts.view, shard, withPlaces(shard, keys), 'records were read')) as unknown[];
    const found: RecordView[] = [];
    for (let at = 0; at < reply.length; ) {
      const key = keys[Number(reply[at]) - 1]!;
      const state = stateNames[String(reply[at + 1])];
      if (!state) throw new ReceiverError('store', `The record of key ${key} can't be read: ${reply[at + 2]}`);
      const [attempts, fence, ageMs, remainingMs] = reply.slice(at + 2, at + 6).map(Number) as [number, number, number, number];
      const shown = { key, state, attempts, fence, ageMs: Math.max(0, ageMs), remainingMs };
      if (state === 'parked') {
        const [reason, detail, label] = reply.slice(at + 6, at + 9).map(String) as [string, string, string];
        found.push({ ...shown, reason, detail, label });
        at += 9;
      } else {
        found.push(shown);
        at += 6;
      }
    }
    return found;
  }

  /** Parked records of a shard after a place in its index, oldest first. */
  async function parkedOf(
    shard: string,
    limit: number,
    after: readonly [number, Key] | undefined,
  ): Promise<(readonly [number, RecordView])[]> {
    const found: (readonly [number, RecordView])[] = [];
    for (let from = 0; found.length < limit; from += page) {
      const range = [`${shard}parked`, after?.[0] ?? '-inf', '+inf', 'withscores', 'limit', from, page];
      // In RESP 3 each comes with its score in a list of their own.
      const reply = ((await connection.send('zrangebyscore', range)) as unknown[]).flat();
      const places = Array.from({ length: reply.length / 2 }, (_, i) => [Number(reply[2 * i + 1]), String(reply[2 * i])] as const);
      const later = new Map(places.filter((place) => !after || byPlace(place, after) > 0).map(([score, key]) => [key, score]));
      if (later.size > 0) {
        for (const view of await views(shard, [...later.keys()])) if (view.state === 'parked') found.push([later.get(view.key)!, view]);
      }
      if (places.length < page) break;
    }
    return found.slice(0, limit);
  }

  /** Names of all keys of the shards. One may come twice while Redis resizes its table. */
  async function* names(send: Send): AsyncGenerator<readonly string[]> {
    const pattern = `${layout.shards[0]!.replace(/[}/].*/s, '').replace(/[\\*?[\]]/g, '\\$&')}*`;
    let cursor = '0';
    do {
      const [next, keys] = (await send('scan', [cursor, 'match', pattern, 'count', 1_000])) as [unknown, unknown[]];
      yield keys.map(String);
      cursor = String(next);
    } while (cursor !== '0');
  }

  return {
    async purge(limit) {
      // Redis deletes expired records by itself. Left to do is the index of parked ones.
      await Promise.all(
        shards.map(async (shard, i) => {
          const reply = await run(scripts.sweep, shard, [swept[i]!, limit], 'the index of parked records was swept');
          const [looked, gone] = (reply as unknown[]).map(Number) as [number, number];
          swept[i] = looked < limit ? 0 : swept[i]! + looked - gone;
        }),
      );
      return 0;
    },

    async inspect(key) {
      const [view] = await views(shardNameOf(key), [key]);
      return view;
    },

    async listParked({ limit, after }) {
      try {
        const score = after === undefined ? null : await connection.send('zscore', [`${shardNameOf(after)}parked`, after]);
        const still = score !== null && (await views(shardNameOf(after!), [after!]))[0]?.state === 'parked';
        const place = still ? ([Number(score), after!] as const) : undefined;
        const all = await Promise.all(shards.map((shard) => parkedOf(shard, limit, place)));
        return all
          .flat()
          .sort(([a, { key: x }], [b, { key: y }]) => byPlace([a, x], [b, y]))
          .slice(0, limit)
          .map(([, view]) => view);
      } catch (cause) {
        throw storeError('parked records were listed', cause);
      }
    },

    replay: (key) => one(scripts.replay, key, 'a record was replayed'),
    forget: (key) => one(scripts.forget, key, 'a record was forgotten'),

    async stats() {
      const stats: Record<RecordView['state'], number> = { claimed: 0, released: 0, completed: 0, parked: 0 };
      const countIn = async (shard: string, all: readonly string[]): Promise<void> => {
        const rest = all.filter((name) => name.startsWith(shard)).map((name) => name.slice(shard.length));
        const keys = rest.filter((each) => /^[\w-]{32}$/.test(each));
        if (keys.length > 0) {
          const counts = (await run(scripts.count, shard, [keys.join('')], 'records were counted')) as unknown[];
          (['claimed', 'released', 'completed', 'parked'] as const).forEach((state, i) => (stats[state] += Number(counts[i])));
        }
        const buckets = layout.compact ? rest.filter((each) => /^~/.test(each)) : [];
        if (buckets.length === 0) return;
        const live = Number(await run(scripts.countCompact, shard, buckets, 'records were counted'));
        stats.completed += live;
      };
      try {
        for (const send of connection.primaries()) {
          for await (const all of names(send)) await Promise.all(shards.map((shard) => countIn(shard, all)));
        }
      } catch (cause) {
        throw storeError('records were counted', cause);
      }
      return stats;
    },
  };
}

/** Order of the index: by time, then by key. */
function byPlace([a, x]: readonly [number, Key], [b, y]: readonly [number, Key]): number {
  return a - b || (x < y ? -1 : x > y ? 1 : 0);
}
