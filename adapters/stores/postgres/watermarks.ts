import { ReceiverError } from '../../../src/errors.ts';
import type { Watermark, Watermarks } from '../../../src/watermarks.ts';
import { type PgQueryable, sqlState } from './client.ts';
import { namesOf, type SchemaOptions } from './names.ts';

/** The migration of {@link postgresWatermarks} as text, for those who run their own. Safe to run again, and by several at once. */
export function watermarksSql(options: SchemaOptions = {}): string {
  const { schema } = namesOf(options);
  return `do $migration$
begin
perform pg_advisory_xact_lock(hashtextextended('idempotent-receiver ${schema}', 0));
create schema if not exists ${schema};
create table if not exists ${schema}.watermarks (
  name text primary key,
  owner text not null,
  next bigint not null, -- -1: taken, and not advanced yet
  done text not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
end
$migration$;`;
}

/** Makes the table of {@link postgresWatermarks}. Run it at deployment. */
export async function migrateWatermarks(pool: PgQueryable, options: SchemaOptions = {}): Promise<void> {
  await pool.query(watermarksSql(options));
}

/**
 * Watermarks in a table next to the effects, a row for each partition. Run `migrateWatermarks(pool)` before. A row is locked from its advance to the
 * commit, so transactions of one partition commit one after another; those of others don't wait.
 *
 * @throws ReceiverError `invalid-option`; its methods reject with code `store` if the table is missing, and with what the client rejects with
 */
export function postgresWatermarks(options: SchemaOptions = {}): Watermarks<PgQueryable> {
  const { schema } = namesOf(options);
  const table = `${schema}.watermarks`;

  async function rowsOf(tx: PgQueryable, sql: string, values: readonly unknown[]): Promise<readonly Row[]> {
    try {
      return (await tx.query(sql, values)).rows as readonly Row[];
    } catch (cause) {
      if (sqlState(cause) !== '42P01' && sqlState(cause) !== '3F000') throw cause;
      const run = "run `migrateWatermarks(pool)` of 'idempotent-receiver/postgres'";
      throw new ReceiverError('store', `Expected the table ${table}, got none: ${run}`, { cause });
    }
  }

  return {
    async take(tx, name, owner) {
      const sql = `insert into ${table} as w values ($1, $2, -1, '')
on conflict (name) do update set owner = excluded.owner returning owner, next, done`;
      return markOf((await rowsOf(tx, sql, [name, owner]))[0]!);
    },

    async read(tx, name, owner) {
      const [row] = await rowsOf(tx, `select owner, next, done from ${table} where name = $1`, [name]);
      return row?.owner === owner ? markOf(row) : 'lost';
    },

    async advance(tx, name, owner, to, from) {
      const found =
        from === undefined
          ? await rowsOf(tx, `update ${table} set next = greatest(next, $3), done = '' where name = $1 and owner = $2 returning 1`, [
              name,
              owner,
              to.next,
            ])
          : await rowsOf(
              tx,
              `update ${table} set next = $3, done = $4 where name = $1 and owner = $2 and next = $5 and done = $6 returning 1`,
              [name, owner, to.next, to.done, from?.next ?? -1, from?.done ?? ''],
            );
      return found.length === 1;
    },
  };
}

interface Row {
  readonly owner: string;
  /** The client gives 64 bits as text. */
  readonly next: string | number;
  readonly done: string;
}

function markOf({ next, done }: Row): Watermark | undefined {
  return Number(next) < 0 ? undefined : { next: Number(next), done };
}
