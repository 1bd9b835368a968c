/*
 * A process of its own on a SQLite file, started by sqlite-processes.test.ts: `claim` claims keys in batches, `unit` runs units that
 * write an effect for each key. Says `ready`, waits to be told to start, tells each batch, and goes when it has seen all keys.
 */
import { DatabaseSync } from 'node:sqlite';
import { sqliteStore } from '../../../adapters/stores/sqlite/index.ts';
import { ask } from '../../../src/testing/clauses/kit.ts';

const [path, mode, client, keys, batch] = process.argv.slice(2) as [string, 'claim' | 'unit', string, string, string];
const db = new DatabaseSync(path);
const store = sqliteStore(db, { lockTimeoutMs: 30_000 });
const names = Array.from({ length: Number(keys) }, (_, i) => i);
// Each process goes through the keys in an order of its own.
names.sort((a, b) => ((a * 7919 + Number(client) * 104_729) % 10_007) - ((b * 7919 + Number(client) * 104_729) % 10_007) || a - b);

const told = (message: unknown) => new Promise<void>((resolve) => process.send!(message, () => resolve()));

async function claimAll(): Promise<void> {
  for (let at = 0; at < names.length; at += Number(batch)) {
    const some = names.slice(at, at + Number(batch));
    const began = performance.now();
    const answers = await store.claim(some.map((name) => ask(name, `client ${client}`, { leaseMs: 30_000 })));
    const claimed = some.filter((_, i) => answers[i]!.state === 'claimed');
    await told({ claimed, others: answers.filter(({ state }) => state !== 'claimed' && state !== 'busy'), ms: performance.now() - began });
  }
}

async function runUnits(): Promise<void> {
  const insert = db.prepare('insert into effects (key, client) values (?, ?)');
  for (let at = 0; at < names.length; at += Number(batch)) {
    const some = names.slice(at, at + Number(batch));
    const claimed = await store.unit(async (unit) => {
      const answers = await unit.record(some.map((name) => ask(name, `client ${client}`)));
      const mine = some.filter((_, i) => answers[i]!.state === 'claimed');
      for (const name of mine) {
        await unit.savepoint(async () => {
          insert.run(name, client);
          await Promise.resolve();
        });
      }
      return mine;
    });
    await told({ claimed });
  }
}

await told('ready');
await new Promise<void>((resolve) => process.once('message', () => resolve()));
await (mode === 'claim' ? claimAll() : runUnits());
await told('done');
process.disconnect();
