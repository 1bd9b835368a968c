import { DatabaseSync } from 'node:sqlite';
import { expect, it } from 'vitest';
import { sqliteStore } from '../../../adapters/stores/sqlite/index.ts';
import { answersAsTheModel } from './model.ts';

it('sqliteStore answers as memoryStore does, in 250 random sequences of 40 commands by two stores that share a file', {
  timeout: 900_000,
}, async () => {
  await answersAsTheModel({
    open() {
      const db = new DatabaseSync(':memory:');
      let now = 1_700_000_000_000;
      const clock = { now: () => now };
      return { stores: [sqliteStore(db, clock), sqliteStore(db, clock)], elapse: (ms) => void (now += ms), close: () => db.close() };
    },
    runs: 250,
    commands: 40,
    units: true,
  });
  expect.hasAssertions();
});
