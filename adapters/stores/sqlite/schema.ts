import { ReceiverError, refuseOption } from '../../../src/errors.ts';
import { inTransaction, isBusy, type SqliteDatabase, storeError } from './database.ts';
import { outboxDdl } from './outbox-schema.ts';

/** Version of the tables below. Raise it with every change that an older build can't live with. */
const schemaVersion = 1;

/** The names of the store's tables. */
export interface Tables {
  /** One row a key. */
  readonly records: string;
  /** Keys that units have completed and that have not been moved into `records` yet, one row a unit. See recent.ts. */
  readonly recent: string;
  /** One row: format, schema version, last fence, and how far `recent` has been moved. */
  readonly meta: string;
  /** Keeps handlers from committing a unit. See unit.ts. */
  readonly guard: string;
  /** What the steps of messages have come to, one row a step. Made later than the others, so it may be missing. */
  readonly journal: string;
  /** Messages to be sent, those that were given up, and who sends. Made later too. */
  readonly outbox: string;
  readonly outboxParked: string;
  readonly outboxLease: string;
}

export function tableNames(prefix: unknown): Tables {
  if (typeof prefix !== 'string' || !/^[A-Za-z_][A-Za-z0-9_]{0,50}$/.test(prefix) || /^sqlite_/i.test(prefix)) {
    refuseOption('tablePrefix', 'a letter or _ and up to 50 letters, digits or _, not beginning with sqlite_', prefix);
  }
  const [records, recent, meta, guard] = [`${prefix}records`, `${prefix}recent`, `${prefix}meta`, `${prefix}guard`];
  const [outbox, outboxParked, outboxLease] = [`${prefix}outbox`, `${prefix}outbox_parked`, `${prefix}outbox_lease`];
  return { records, recent, meta, guard, journal: `${prefix}journal`, outbox, outboxParked, outboxLease };
}

/** The expiry index is this coarse, so that within it the order is that of the keys, in which they are written: they share pages. */
export const expiryBucketMs = 1000;

/**
 * Keys are random, so a row goes to any page: a clustered table (without rowid) touches one page for it and not two. Nothing that decides
 * is nullable. Times are milliseconds since the Unix epoch.
 */
const ddl = (t: Tables): string => `
  create table ${t.records} (
    key blob not null primary key, fingerprint blob not null, state integer not null, token text not null, fence integer not null,
    attempts integer not null, orphaned integer not null, lease_until integer not null, written_at integer not null,
    expires_at integer not null, result text, reason text, detail text, label text
  ) strict, without rowid;
  create index ${t.records}_expiry on ${t.records} (expires_at / ${expiryBucketMs});
  create index ${t.records}_parked on ${t.records} (written_at, key) where state = 4;
  create table ${t.recent} (
    id integer primary key, written_at integer not null, expires_at integer not null, entries blob not null
  ) strict;
  create table ${t.guard} (
    id integer primary key, open integer not null references ${t.guard} (id) deferrable initially deferred
  ) strict;
  create table ${t.meta} (
    id integer primary key check (id = 1), format text not null, version integer not null, fence integer not null,
    merges integer not null, merged text not null
  ) strict;
  insert into ${t.meta} values (1, 'idempotent-receiver', ${schemaVersion}, 0, 0, '[]');`;

const journalDdl = (t: Tables): string => `
  create table if not exists ${t.journal} (
    key blob not null, name text not null, state text not null, text text not null, primary key (key, name)
  ) strict, without rowid;`;

/**
 * Sets the connection up and makes the tables where they are missing. Safe when many processes do it at once. Blocks this process for
 * `lockTimeoutMs` at most. @throws ReceiverError `store` if the file can't be used
 */
export function prepareDatabase(
  db: SqliteDatabase,
  tables: Tables,
  options: { durability: 'full' | 'normal'; lockTimeoutMs: number },
): void {
  if (inTransaction(db)) throw new ReceiverError('store', 'Expected the SQLite connection to be idle, got one with an open transaction');
  try {
    db.exec(`pragma busy_timeout = ${Math.round(options.lockTimeoutMs)}`);
    // A switch to WAL does not always wait for the busy timeout.
    persist(options.lockTimeoutMs, () => db.exec('pragma journal_mode = wal'));
    expectPragma(db, 'journal_mode', ['wal', 'memory']);
    const [level, value] = options.durability === 'full' ? ['full', 2] : ['normal', 1];
    db.exec(`pragma synchronous = ${level}`);
    expectPragma(db, 'synchronous', [value]);
    expectPragma(db, 'foreign_keys', [1]);
    // Text is read as bytes, see session.ts.
    expectPragma(db, 'encoding', ['UTF-8']);
    if (!hasTables(db, tables)) createTables(db, tables, options.lockTimeoutMs);
    checkVersion(db, tables);
    persist(options.lockTimeoutMs, () => db.exec(journalDdl(tables) + outboxDdl(tables)));
    // The default of 2 MB is less than the records of a day. In KiB.
    db.exec('pragma cache_size = -16384');
    // From here on a lock is waited for without blocking the event loop.
    db.exec('pragma busy_timeout = 0');
  } catch (error) {
    throw storeError('the store was opened', error);
  }
}

function createTables(db: SqliteDatabase, tables: Tables, lockTimeoutMs: number): void {
  persist(lockTimeoutMs, () => db.exec('begin immediate'));
  try {
    // Another process may have been faster.
    if (!hasTables(db, tables)) db.exec(ddl(tables));
    db.exec('commit');
  } catch (error) {
    if (inTransaction(db)) db.exec('rollback');
    throw error;
  }
}

/** True if all tables are there, false if none is. Some of them: somebody else's. */
function hasTables(db: SqliteDatabase, tables: Tables): boolean {
  const names = [tables.records, tables.recent, tables.meta, tables.guard];
  const find = db.prepare(`select name from sqlite_schema where name in (${names.map(() => '?').join()})`);
  const found = find.all(...names).map((row) => (row as { name: string }).name);
  if (found.length === 0) return false;
  if (found.length === names.length) return true;
  throw new ReceiverError(
    'store',
    `Expected all or none of the tables ${names.join(', ')} in the SQLite file, got only ${found.join(', ')}: is it a table of your own? Choose another \`tablePrefix\``,
  );
}

function checkVersion(db: SqliteDatabase, tables: Tables): void {
  let meta: { format: unknown; version: unknown } | undefined;
  try {
    meta = db.prepare(`select format, version from ${tables.meta} where id = 1`).get() as typeof meta;
  } catch (cause) {
    if (isBusy(cause)) throw cause;
    throw new ReceiverError('store', `Expected table ${tables.meta} to be the store's, got another one. Choose another \`tablePrefix\``, {
      cause,
    });
  }
  if (meta?.format !== 'idempotent-receiver') {
    throw new ReceiverError('store', `Expected table ${tables.meta} to be the store's, got format ${JSON.stringify(meta?.format)}`);
  }
  if (meta.version !== schemaVersion) {
    throw new ReceiverError(
      'store',
      `Expected schema version ${schemaVersion} in table ${tables.meta}, got ${meta.version}: another version of idempotent-receiver made this file`,
    );
  }
}

function expectPragma(db: SqliteDatabase, name: string, expected: readonly unknown[]): void {
  const row = db.prepare(`pragma ${name}`).get() as Record<string, unknown> | undefined;
  const got = row?.[name];
  if (!row || Array.isArray(row) || typeof got === 'bigint') {
    throw new ReceiverError(
      'store',
      'Expected the SQLite connection to give rows as objects and integers as numbers, not arrays or bigints',
    );
  }
  if (!expected.includes(got)) throw new ReceiverError('store', `Expected SQLite's ${name} to be ${expected.join(' or ')}, got ${got}`);
}

/** Tries again while the lock is held by others. Blocks: only for the construction of a store. */
function persist(timeoutMs: number, run: () => void): void {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return run();
    } catch (error) {
      if (!isBusy(error) || performance.now() >= deadline) throw error;
      Atomics.wait(pause, 0, 0, 5 + Math.random() * 10);
    }
  }
}

const pause = new Int32Array(new SharedArrayBuffer(4));
