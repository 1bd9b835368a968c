import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { expect, it } from 'vitest';
import { sqliteStore, sqliteWatermarks } from '../../../adapters/stores/sqlite/index.ts';
import { watermarksContract } from './watermarks-contract.ts';

watermarksContract({
  title: 'watermarks in SQLite',
  async open() {
    const folder = mkdtempSync(join(tmpdir(), 'idempotent-receiver-'));
    const files = [new DatabaseSync(join(folder, 'db')), new DatabaseSync(join(folder, 'db'))] as const;
    return {
      rows: sqliteWatermarks(),
      stores: [sqliteStore(files[0]), sqliteStore(files[1])],
      async close() {
        for (const file of files) file.close();
        rmSync(folder, { recursive: true });
      },
    };
  },
});

it('a name that is no table of its own is refused', () => {
  expect(() => sqliteWatermarks({ table: 'a b' })).toThrow('Expected `table` to be a letter or _ and up to 60 letters');
  expect(() => sqliteWatermarks({ table: 'sqlite_x' })).toThrow('Expected `table`');
});
