import { ReceiverError } from '../../../src/errors.ts';
import type { PgQueryable } from './client.ts';
import type { Names } from './names.ts';

/**
 * Begins the next partition when it is time, and drops those of which all records have expired. Nobody waits for it: a partition is taken out of use for
 * those who come, this waits for those who were there before, and drops it then. Whatever is interrupted is ended by the next one. Answers 0: it deletes
 * no single records.
 */
export async function dropExpiredPartitions(pool: PgQueryable, names: Names): Promise<number> {
  const { schema, records, journal } = names;
  const { rows } = await pool.query(`select part from ${schema}.upkeep() as part`);
  for (const { part } of rows as readonly { readonly part: number }[]) {
    await detach(pool, records, part);
    await detach(pool, journal, part);
    const { rows: dropped } = await pool.query(`select ${schema}.drop_partition($1) as dropped`, [part]);
    if (dropped[0].dropped !== true) throw new ReceiverError('store', `Expected the records of ${records}_${part} to have expired`);
  }
  return 0;
}

async function detach(pool: PgQueryable, table: string, part: number): Promise<void> {
  const { rows } = await pool.query('select inhdetachpending as pending from pg_inherits where inhrelid = $1::regclass', [
    `${table}_${part}`,
  ]);
  const [found] = rows as readonly { readonly pending: boolean }[];
  if (found) await pool.query(`alter table ${table} detach partition ${table}_${part} ${found.pending ? 'finalize' : 'concurrently'}`);
}
