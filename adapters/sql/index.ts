/**
 * Transactions of the libraries that you have, for everything that takes one: `outbox.publish`, `recordOnce` of PostgreSQL, conditional writes. A
 * pg client needs none of these. Each refuses what is no transaction.
 */
import { noTransaction } from '../../src/effects/outbox.ts';
import type { SqlTx } from '../../src/effects/sql.ts';

/** A transaction of Drizzle on PostgreSQL. */
export interface DrizzleTransaction {
  execute(query: any): PromiseLike<unknown>;
  /** What a transaction has, and a database has not. */
  rollback(): never;
}

/** `sql` of `drizzle-orm`. */
export interface DrizzleSql {
  raw(text: string): unknown;
  param(value: unknown): unknown;
  join(chunks: any[]): unknown;
}

/** `db.transaction(async (tx) => { await outbox.publish(drizzleTx(tx, sql), 'orders', message); })`, with `sql` of `drizzle-orm`. */
export function drizzleTx(tx: DrizzleTransaction, sql: DrizzleSql): SqlTx {
  if (typeof tx.rollback !== 'function') throw noTransaction();
  return {
    async query(text, values = []) {
      const chunks = piecesOf(text).map((piece) => (typeof piece === 'string' ? sql.raw(piece) : sql.param(values[piece - 1])));
      return rowsIn(await tx.execute(sql.join(chunks)));
    },
  };
}

/** A transaction of Kysely on PostgreSQL. */
export interface KyselyTransaction {
  readonly isTransaction: boolean;
  withoutPlugins(): { executeQuery(query: any): Promise<{ readonly rows: readonly any[] }> };
}

/** `db.transaction().execute(async (trx) => { await outbox.publish(kyselyTx(trx), 'orders', message); })` */
export function kyselyTx(trx: KyselyTransaction): SqlTx {
  if (trx.isTransaction !== true) throw noTransaction();
  // Plugins may give columns other names.
  const plain = trx.withoutPlugins();
  return {
    query: (sql, parameters = []) =>
      plain.executeQuery({
        sql,
        parameters,
        query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
        queryId: { queryId: 'outbox' },
      }),
  };
}

/** A transaction of Knex on PostgreSQL. */
export interface KnexTransaction {
  readonly isTransaction?: boolean | undefined;
  raw(sql: string, bindings: any): PromiseLike<any>;
}

/** `knex.transaction(async (trx) => { await outbox.publish(knexTx(trx), 'orders', message); })` */
export function knexTx(trx: KnexTransaction): SqlTx {
  if (trx.isTransaction !== true) throw noTransaction();
  return {
    async query(text, values = []) {
      const bindings: unknown[] = [];
      const pieces = piecesOf(text).map((piece) => {
        // Knex takes each question mark for a parameter.
        if (typeof piece === 'string') return piece.replaceAll('?', '\\?');
        bindings.push(values[piece - 1]);
        return '?';
      });
      return rowsIn(await trx.raw(pieces.join(''), bindings));
    },
  };
}

/** The client of an interactive transaction of Prisma on PostgreSQL. */
export interface PrismaTransaction {
  $queryRawUnsafe(text: string, ...values: any[]): PromiseLike<unknown>;
  /** What a client has, and a transaction has not. */
  readonly $connect?: never;
}

/** `prisma.$transaction(async (tx) => { await outbox.publish(prismaTx(tx), 'orders', message); })` */
export function prismaTx(tx: PrismaTransaction): SqlTx {
  if (tx.$connect !== undefined) throw noTransaction();
  return { query: async (text, values = []) => rowsIn(await tx.$queryRawUnsafe(text, ...values)) };
}

/** Some drivers answer the rows, others an object that has them. */
function rowsIn(result: unknown): { readonly rows: readonly any[] } {
  return Array.isArray(result) ? { rows: result } : (result as { rows: readonly any[] });
}

/** The text between the parameters, and the numbers of those. What is in quotes is text. */
function piecesOf(text: string): (string | number)[] {
  const pieces: (string | number)[] = [];
  let from = 0;
  for (const found of text.matchAll(/"(?:[^"]|"")*"|'(?:[^']|'')*'|\$(\d+)/g)) {
    if (found[1] === undefined) continue;
    pieces.push(text.slice(from, found.index), Number(found[1]));
    from = found.index + found[0].length;
  }
  return [...pieces, text.slice(from)];
}
