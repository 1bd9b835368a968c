import { ReceiverError, refuseOption } from '../../../src/errors.ts';

/**
 * The part of a SQLite connection that the store uses. `DatabaseSync` of `node:sqlite` and a `Database` of better-sqlite3 have it.
 * It must be open, writable, and used by nobody else but the handlers, through `ctx.tx`.
 */
export interface SqliteDatabase {
  exec(sql: string): unknown;
  prepare(sql: string): SqliteStatement;
  /** `node:sqlite`'s name for it. */
  readonly isTransaction?: boolean;
  /** better-sqlite3's name for it. */
  readonly inTransaction?: boolean;
}

export interface SqliteStatement {
  all(...values: any[]): unknown[];
  get(...values: any[]): unknown;
  run(...values: any[]): { readonly changes: number | bigint };
}

/** @throws ReceiverError `invalid-option` */
export function expectDatabase(db: SqliteDatabase): void {
  if (typeof db?.prepare !== 'function' || typeof db.exec !== 'function')
    refuseOption('db', 'an open connection of node:sqlite or better-sqlite3', db);
}

/** Whether a transaction is open. SQLite itself ends one when the disk is full or fails, and a handler might. */
export function inTransaction(db: SqliteDatabase): boolean {
  return db.isTransaction ?? db.inTransaction ?? false;
}

/** Another connection holds the lock: worth another try. */
export function isBusy(error: unknown): boolean {
  const { errcode, code } = error as { errcode?: unknown; code?: unknown };
  if (typeof errcode === 'number') return (errcode & 0xff) === 5 || (errcode & 0xff) === 6;
  return typeof code === 'string' && /^SQLITE_(BUSY|LOCKED)/.test(code);
}

/** A `ReceiverError` of code `store` for what SQLite threw; errors of this library pass as they are. */
export function storeError(doing: string, cause: unknown): ReceiverError {
  if (cause instanceof ReceiverError) return cause;
  return new ReceiverError('store', `SQLite failed while ${doing}: ${cause instanceof Error ? cause.message : cause}`, { cause });
}

/** Runs the store's own statements, so that what SQLite throws comes out as a `ReceiverError` of code `store`. */
export function statements<R>(doing: string, run: () => R): R {
  try {
    return run();
  } catch (cause) {
    throw storeError(doing, cause);
  }
}
