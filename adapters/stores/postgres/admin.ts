import { ReceiverError } from '../../../src/errors.ts';
import type { RecordView, StoreAdmin, StoreStats } from '../../../src/store.ts';
import type { PgQueryable } from './client.ts';
import { bucketOf, type Names } from './names.ts';
import { claimed, damageOf, keyOfBytes, keyToBytes, parked, released, type State, seenColumns, stateNames, textOf } from './rows.ts';

interface Row {
  readonly key: Buffer;
  readonly fingerprint: Buffer;
  readonly state: State;
  readonly attempts: number;
  readonly fence: string;
  readonly reason: Buffer | null;
  readonly detail: Buffer | null;
  readonly label: Buffer | null;
  readonly age_ms: number;
  readonly expires_ms: number;
}

/** What people and tools may do with records. */
export function adminVerbs(pool: PgQueryable, { records }: Names, ready: () => Promise<void>): StoreAdmin {
  const columns = `r.key, r.attempts, r.fence, r.label, ${seenColumns('r')}`;
  const now = 'statement_timestamp()';

  async function rows(sql: string, values: readonly unknown[]): Promise<readonly any[]> {
    await ready();
    return (await pool.query(sql, values)).rows;
  }

  return {
    async inspect(key) {
      const [row] = await rows(`select ${columns} from ${records} r where key = $1 and expires_at > ${now}`, [keyToBytes(key)]);
      return row && viewOf(row);
    },

    async listParked({ limit, after }) {
      const found = await rows(
        `select ${columns} from ${records} r left join ${records} last on last.key = $2 and last.state = ${parked} and last.expires_at > ${now}
where r.state = ${parked} and r.expires_at > ${now} and (last.key is null or (r.written_at, r.key) > (last.written_at, last.key))
order by r.written_at, r.key limit $1`,
        [limit, after === undefined ? null : keyToBytes(after)],
      );
      return found.map(viewOf);
    },

    async replay(key) {
      const expires = `${now} + (expires_at - written_at)`;
      const found = await rows(
        `update ${records} set state = ${released}, attempts = 0, reason = null, detail = null, label = null, lease_until = ${now}, written_at = ${now},
  expires_at = ${expires}, expires_minute = ${bucketOf(`(${expires})`)}
where key = $1 and state = ${parked} and expires_at > ${now} returning key`,
        [keyToBytes(key)],
      );
      return found.length > 0;
    },

    async forget(key) {
      const found = await rows(
        `delete from ${records} where key = $1 and expires_at > ${now} and (state <> ${claimed} or lease_until <= ${now}) returning key`,
        [keyToBytes(key)],
      );
      return found.length > 0;
    },

    async stats() {
      const stats: Record<RecordView['state'], number> = { claimed: 0, released: 0, completed: 0, parked: 0 };
      const found = await rows(`select state, count(*)::float8 as records from ${records} where expires_at > ${now} group by state`, []);
      for (const { state, records: count } of found) if (Object.hasOwn(stateNames, state)) stats[stateNames[state as State]] = count;
      return stats satisfies StoreStats;
    },
  };
}

function viewOf(row: Row): RecordView {
  const key = keyOfBytes(row.key);
  const damage = damageOf(row);
  if (damage) throw new ReceiverError('store', `The record of key ${key} can't be read: ${damage}`);
  const { state, attempts, fence, age_ms, expires_ms } = row;
  const shown = { key, state: stateNames[state], attempts, fence: Number(fence), ageMs: Math.max(0, age_ms), remainingMs: expires_ms };
  return state === parked ? { ...shown, reason: textOf(row.reason), detail: textOf(row.detail), label: textOf(row.label) } : shown;
}
