import type { OutboxAdmin, ParkedMessage } from '../../../src/effects/outbox.ts';
import type { PgQueryable } from './client.ts';
import type { OutboxNames } from './outbox-schema.ts';

export function outboxAdmin(pool: PgQueryable, { outbox, outboxParked }: OutboxNames, ready: () => Promise<void>): OutboxAdmin {
  const what = 'destination, shard, ordering_key, id, body, headers';
  const ask = async (sql: string, values: readonly unknown[]): Promise<readonly any[]> => {
    await ready();
    return (await pool.query(sql, values)).rows;
  };
  return {
    stats: () =>
      ask(
        `select destination, sum(waiting)::float8 as waiting, sum(parked)::float8 as parked,
  coalesce(greatest(0, extract(epoch from statement_timestamp() - min(oldest)) * 1000), 0)::float8 as "oldestMs" from (
    select destination, count(*) as waiting, 0 as parked, min(published_at) as oldest from ${outbox} group by destination
    union all select destination, 0, count(*), null from ${outboxParked} group by destination
  ) counted group by destination order by destination`,
        [],
      ),

    async listParked({ limit, after = '0' }) {
      const rows = await ask(
        `select number, destination, ordering_key, id, body, headers, failures, reason,
  (extract(epoch from statement_timestamp() - parked_at) * 1000)::float8 as "ageMs" from ${outboxParked} where number > $1 order by number limit $2`,
        [after, limit],
      );
      return rows.map(
        ({ ordering_key, headers, ...row }): ParkedMessage => ({
          ...row,
          orderingKey: ordering_key ?? undefined,
          headers: JSON.parse(headers),
        }),
      );
    },

    replay: async (number) =>
      (
        await ask(
          `with gone as (delete from ${outboxParked} where number = $1 returning *)
insert into ${outbox} (${what}) select ${what} from gone returning 1`,
          [number],
        )
      ).length === 1,

    discard: async (number) => (await ask(`delete from ${outboxParked} where number = $1 returning 1`, [number])).length === 1,
  };
}
