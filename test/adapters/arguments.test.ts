import { DatabaseSync } from 'node:sqlite';
import { expect, it } from 'vitest';
import { sqsPoller, sqsSender } from '../../adapters/brokers/sqs/index.ts';
import { kafkaTransactions } from '../../adapters/stores/kafka-transactions/index.ts';
import { migrate, postgresOutbox, recordOnce } from '../../adapters/stores/postgres/index.ts';
import { sqliteOutbox, sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import { insertOnce, relay } from '../../src/index.ts';

/** Calls of plain JavaScript that leave out, or mix up, what nothing works without. */
const pool = { query: async () => ({ rows: [] }), connect: async () => ({}) } as never;
const none = undefined as never;
const calls: [string, () => unknown, string][] = [
  ['sqliteStore()', () => sqliteStore(none), '`db` to be an open connection of node:sqlite or better-sqlite3, got `undefined`'],
  [
    "sqliteStore('a.db')",
    () => sqliteStore('a.db' as never),
    '`db` to be an open connection of node:sqlite or better-sqlite3, got `"a.db"`',
  ],
  ["sqliteOutbox('a.db', …)", () => sqliteOutbox('a.db' as never, { destinations: ['a'] }), '`db` to be an open connection of node:sqlite'],
  ['sqliteOutbox(db)', () => sqliteOutbox(new DatabaseSync(':memory:'), none), '`options` to be `{ destinations }`, got `undefined`'],
  ['postgresOutbox(pool)', () => postgresOutbox(pool, none), '`options` to be `{ destinations }`, got `undefined`'],
  ['migrate()', () => migrate(none), '`pool` to be a pg Pool or Client, got `undefined`'],
  ['recordOnce(tx)', () => recordOnce(pool, none), '`options` to be `{ scope, id }`, got `undefined`'],
  ['recordOnce()', () => recordOnce(none, { scope: 'a', id: 'b' }), '`tx` to be a transaction that is open, got `undefined`'],
  ['kafkaTransactions()', () => kafkaTransactions(none), '`options` to be `{ kafka, groupId, dedupLog }`, got `undefined`'],
  ['sqsPoller()', () => sqsPoller(none), '`options` to be `{ client, queueUrl, receiver }`, got `undefined`'],
  ['sqsSender()', () => sqsSender(none), '`options` to be `{ client, queueUrl, key }`, got `undefined`'],
  ['relay()', () => relay(none), '`options` to be `{ outbox, to }`, got `undefined`'],
  [
    'insertOnce({}, …)',
    () => insertOnce({} as never, 'charges', { id: 'a' }),
    '`tx` to be a connection with its transaction, got `[object Object]`',
  ],
  ['insertOnce()', () => insertOnce(none, 'charges', { id: 'a' }), '`tx` to be a connection with its transaction, got `undefined`'],
];

it.each(calls)('%s is told what was expected', async (_, call, text) => {
  await expect(async () => call()).rejects.toThrow(
    expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining(`Expected ${text}`) }),
  );
});
