import { refuseOption } from '../errors.ts';

/**
 * A transaction that runs SQL: a pg `Client` or `PoolClient` as it is, or what `idempotent-receiver/sql` makes of the transactions of Drizzle,
 * Kysely, Knex and Prisma. Parameters are `$1`, `$2`, ….
 */
export interface SqlTx {
  query(text: string, values?: readonly unknown[]): Promise<{ readonly rows: readonly any[] }>;
}

/** A SQLite connection with its transaction: `DatabaseSync` of `node:sqlite`, or a `Database` of better-sqlite3. */
export interface SqliteTx {
  prepare(sql: string): { all(...values: any[]): unknown[] };
}

/** A statement with its parameters. */
export interface SqlText {
  readonly text: string;
  readonly values: readonly unknown[];
}

/** Runs a statement and answers its rows. */
export async function rowsOf(tx: SqlTx | SqliteTx, { text, values }: SqlText): Promise<readonly unknown[]> {
  const given = (tx ?? {}) as Partial<SqlTx & SqliteTx>;
  if (typeof given.query !== 'function' && typeof given.prepare !== 'function') refuseOption('tx', 'a connection with its transaction', tx);
  if ('query' in tx) return (await tx.query(text, values)).rows;
  const args: unknown[] = [];
  // `?` for each parameter, in the order in which they stand; what is in quotes is a name.
  const sql = text.replace(/"(?:[^"]|"")*"|\$(\d+)/g, (found, place?: string) => {
    if (place === undefined) return found;
    args.push(values[Number(place) - 1]);
    return '?';
  });
  return tx.prepare(sql).all(...args);
}
