import { expect, it } from 'vitest';
import { migrateWatermarks, postgresWatermarks } from '../../../adapters/stores/postgres/index.ts';
import { postgresHarness } from './postgres-harness.ts';
import { watermarksContract } from './watermarks-contract.ts';

watermarksContract({
  title: 'watermarks in Postgres',
  async open() {
    const { db, schema, store, another, close } = await postgresHarness();
    await Promise.all([migrateWatermarks(db, { schema }), migrateWatermarks(db, { schema })]);
    return { rows: postgresWatermarks({ schema }), stores: [store, await another!()], close };
  },
});

it('without their table say what to run', async () => {
  const { schema, store, close } = await postgresHarness();
  const taken = store.unit((unit) => unit.savepoint((tx) => postgresWatermarks({ schema }).take(tx, 'p', 'a')));
  await expect(taken).rejects.toThrow(
    `Expected the table "${schema}".watermarks, got none: run \`migrateWatermarks(pool)\` of 'idempotent-receiver/postgres'`,
  );
  await close?.();
});
