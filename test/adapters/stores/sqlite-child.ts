/*
 * A process of its own on a SQLite file, started by sqlite-processes.test.ts: `claim` claims keys in batches, `unit` runs units that
 * write an effect for each key.
 */
import '../../support/ends-with-parent.ts';
import { DatabaseSync } from 'node:sqlite';
import { sqliteStore } from '../../../adapters/stores/sqlite/index.ts';
import { ask } from '../../../src/testing/clauses/kit.ts';
import { batchesOf, beChild, claimAll, tell } from './processes.ts';

const [path, mode] = process.argv.slice(2) as [string, 'claim' | 'unit'];
const [client, keys, size] = process.argv.slice(4).map(Number) as [number, number, number];
const db = new DatabaseSync(path);
const store = sqliteStore(db, { lockTimeoutMs: 30_000 });

async function runUnits(): Promise<void> {
  const insert = db.prepare('insert into effects (key, client) values (?, ?)');
  for (const names of batchesOf(client, keys, size)) {
    const claimed = await store.unit(async (unit) => {
      const answers = await unit.record(names.map((name) => ask(name, `client ${client}`)));
      const mine = names.filter((_, i) => answers[i]!.state === 'claimed');
      for (const name of mine) {
        await unit.savepoint(async () => {
          insert.run(name, client);
          await Promise.resolve();
        });
      }
      return mine;
    });
    await tell({ claimed });
  }
}

await beChild(() => (mode === 'claim' ? claimAll(store, client, keys, size) : runUnits()));
