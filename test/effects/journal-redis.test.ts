import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { layoutOf } from '../../adapters/stores/redis/layout.ts';
import { type ScriptName, scriptsFor } from '../../adapters/stores/redis/scripts.ts';
import { asCompleted, keyOf, retainMs, single } from '../../src/testing/clauses/kit.ts';
import { journalClauses, journalContract, runClause } from '../../src/testing/index.ts';
import { type RedisHarnessOptions, redisHarness } from '../adapters/stores/redis-harness.ts';
import { service } from '../support/services/index.ts';

let client: Redis;
let nodeRedis: ReturnType<typeof createClient>;
beforeAll(async () => {
  const { url } = await service('redis');
  client = new Redis(url);
  nodeRedis = createClient({ url });
  await nodeRedis.connect();
});
afterAll(() => {
  client?.disconnect();
  nodeRedis?.destroy();
});

const skip = [
  { clause: '33h', reason: 'Redis deletes expired records by itself, and purge answers 0' },
  { clause: '33j', reason: 'Redis deletes expired records by itself, and purge answers 0' },
  { clause: '36a', reason: 'the server is shared, and a script is one write to it, as with records' },
];
const compact = { retentionMs: retainMs, expectedIds: 1_000 };

function contract(name: string, options: () => RedisHarnessOptions) {
  journalContract({ describe, it, name, open: () => redisHarness(client, options()), skip });
}

contract('redisStore', () => ({}));
contract('redisStore, 4 shards', () => ({ shards: 4 }));
contract('redisStore, compact', () => ({ compact }));
contract('redisStore on node-redis', () => ({ client: nodeRedis }));

/** Scripts that are wrong in one way, and the clause that must notice. */
const mutants: readonly { name: string; script: ScriptName; breaks: string; from: string; to: string }[] = [
  {
    name: 'writes for any token',
    script: 'writeEntries',
    breaks: '31a',
    from: "r.state == 'c' and r.token == ARGV[at + 1]",
    to: "r.state == 'c'",
  },
  { name: 'writes for a token that has settled', script: 'writeEntries', breaks: '31b released', from: "r.state == 'c' and ", to: '' },
  { name: 'reads for a token that has settled', script: 'readEntries', breaks: '31b parked', from: "r.state == 'c' and ", to: '' },
  {
    name: 'lets the last write win',
    script: 'writeEntries',
    breaks: '32a',
    from: "if not known or sub(known, 1, 1) == 's' then",
    to: 'if true then',
  },
  { name: 'keeps the first write', script: 'writeEntries', breaks: '32b', from: "or sub(known, 1, 1) == 's' ", to: '' },
  {
    name: 'takes over what an older record has left',
    script: 'writeEntries',
    breaks: '33i',
    from: "if not r.journal then call('DEL', journal) end",
    to: '',
  },
  {
    name: 'reads what an older record has left',
    script: 'readEntries',
    breaks: '33i',
    from: "r.journal and call('HGETALL', journalOf(key)) or {}",
    to: "call('HGETALL', journalOf(key))",
  },
  {
    name: 'does not let the journal live as long as an extended record',
    script: 'extend',
    breaks: '33e',
    from: "if r.journal then call('PEXPIREAT', journalOf(key), expiry) end",
    to: '',
  },
  {
    name: 'does not let the journal live as long as a released record',
    script: 'settle',
    breaks: '33f',
    from: "if state == 'r' or state == 'p' then call('PEXPIREAT', journalOf(key), expiry) else",
    to: "if state == 'd' or state == 'D' or state == 'k' then",
  },
  {
    name: 'forgets the journal with the attempt',
    script: 'claim',
    breaks: '33c',
    from: "r.state, r.token, r.fence, r.attempts = 'c'",
    to: "r.journal = false r.state, r.token, r.fence, r.attempts = 'c'",
  },
];

describe('the journal contract catches a Redis script that', () => {
  it.each(mutants.map((mutant) => [`${mutant.name} → ${mutant.breaks}`, mutant] as const))(
    '%s',
    async (_, { script, from, to, breaks }) => {
      let places = 0;
      const scripts = scriptsFor(layoutOf('any', 1, undefined).compact, (text, name) => {
        if (name !== script) return text;
        places = text.split(from).length - 1;
        return text.replace(from, () => to);
      });
      expect(places, `places of ${from}`).toBe(1);
      const clause = journalClauses.find(({ id }) => id === breaks)!;
      await runClause(clause, () => redisHarness(client));
      await expect(runClause(clause, () => redisHarness(client, { scripts }))).rejects.toMatchObject({ name: 'AssertionError' });
    },
  );
});

describe('the journal in Redis', () => {
  it('is gone when its record is completed, and expires with it otherwise', async () => {
    const harness = redisHarness(client);
    const { store, prefix } = harness;
    const { claim, settle } = single(store);
    const entry = { name: 'x', state: 'done', text: '1' } as const;
    for (const name of ['a', 'b']) {
      await claim(name, 'owner');
      expect(await store.writeEntries([{ key: keyOf(name), token: 'owner', ...entry }])).toEqual(['ok']);
    }
    const journals = async () => (await client.keys(`{${prefix}}:+*`)).map((key) => key.slice(-32)).sort();
    expect(await journals()).toEqual([keyOf('a'), keyOf('b')].sort());
    const [record, journal] = [`{${prefix}}:${keyOf('b')}`, `{${prefix}}:+${keyOf('b')}`];
    expect(await client.pexpiretime(journal)).toBe(await client.pexpiretime(record));
    await settle('a', 'owner', asCompleted);
    expect(await journals()).toEqual([keyOf('b')]);
    expect((await store.stats()).completed).toBe(1);
    await harness.close!();
  });
});
