/**
 * A transaction that runs SQL: a pg `Client` or `PoolClient` as it is, or what `idempotent-receiver/sql` makes of the transactions of Drizzle,
 * Kysely, Knex and Prisma. Parameters are `$1`, `$2`, ….
 */
export interface SqlTx {
  query(text: string, values?: readonly unknown[]): Promise<{ readonly rows: readonly any[] }>;
}
