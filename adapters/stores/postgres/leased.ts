import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, DedupStore, End, Hold, Settled } from '../../../src/store.ts';
import { isConflict, isLocked, type PgQueryable } from './client.ts';
import { bucketOf, isAt, type Names, placeOf } from './names.ts';
import { dropExpiredPartitions } from './partitions.ts';
import { inRounds } from './rounds.ts';
import { answerOf, bytesOf, claimed, columnsOf, isSound, keyToBytes, now, stateOf, type Taken, takeSql } from './rows.ts';

/** So often a statement is sent again that met another one, before it is given up. Each time at least one of them has gone on. */
const mostTries = 8;

/** What a key is answered that another transaction holds: it will not take long, but nobody knows how long. */
export const lockedMs = 1_000;

/** How long a statement waits for a key once one of its batch has been waited for as long as may be: many may be held. */
export const impatientMs = 5;

/**
 * The first common table expression of each statement. It sets what the statement needs, and for it alone, because a pool like PgBouncer may give each
 * to another session. `lockTimeout` is SQL.
 */
export const settingsSql = (lockTimeout: string): string =>
  `first as materialized (select set_config('lock_timeout', ${lockTimeout}, true),
  set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on' else current_setting('synchronous_commit') end, true))`;

/** Sends statements that may be sent again: they act for tokens, or on nothing but what has expired. */
export function sender(pool: PgQueryable): (sql: string, values: readonly unknown[]) => Promise<readonly any[]> {
  return async (sql, values) => {
    for (let tries = 1; ; tries++) {
      try {
        return (await pool.query(sql, values)).rows;
      } catch (error) {
        if (!isConflict(error) || tries >= mostTries) throw error;
      }
    }
  };
}

/** The leased way: each verb is one statement for its whole batch, unless it meets others. */
export function leasedVerbs(pool: PgQueryable, names: Names, lockTimeoutMs: number, ready: () => Promise<void>): DedupStore {
  const send = sender(pool);
  const first = settingsSql(`'${lockTimeoutMs}'`);
  const claimSql = takeSql(names, claimed, settingsSql('$6'));
  const settle = verbSql(names, 'settle', first);
  const extend = verbSql(names, 'extend', first);
  const purgeSql = `with ${first}
delete from ${names.records} where ctid = any (array(
  select r.ctid from first, ${names.records} r
  where r.expires_minute <= ${bucketOf('statement_timestamp()')} and r.expires_at <= statement_timestamp() and r.lease_until <= statement_timestamp()
  order by r.expires_minute limit $1 for update of r skip locked))`;

  /** Keys that another transaction holds must not keep the others from their answer: the batch is halved until they are alone. */
  async function take(asks: readonly Ask[], patienceMs = lockTimeoutMs): Promise<Answer[]> {
    try {
      return await claimRound(asks, patienceMs);
    } catch (error) {
      if (!isLocked(error)) throw error;
      if (asks.length === 1) return [{ state: 'busy', remainingMs: lockedMs }];
      const half = asks.length >> 1;
      return [...(await take(asks.slice(0, half), impatientMs)), ...(await take(asks.slice(half), impatientMs))];
    }
  }

  function claimRound(asks: readonly Ask[], patienceMs: number): Promise<Answer[]> {
    return untilKnown(asks, async (open) => {
      const rows = (await send(claimSql, [...columnsOf(open), `${patienceMs}`])) as Taken[];
      return rows.map((row, i) => answerOf(open[i]!, row));
    });
  }

  return {
    async claim(asks) {
      if (asks.length === 0) return [];
      await ready();
      return inRounds(asks, (round) => take(round));
    },

    async settle(ends) {
      if (ends.length === 0) return [];
      await ready();
      return inRounds(ends, (round) => untilKnown(round, async (open) => settled(await send(settle, endColumns(open)))));
    },

    async extend(holds) {
      if (holds.length === 0) return [];
      await ready();
      return inRounds(holds, (round) => untilKnown(round, async (open) => settled(await send(extend, holdColumns(open)))));
    },

    async purge(limit) {
      await ready();
      if (names.partitions) return dropExpiredPartitions(pool, names);
      return (await pool.query(purgeSql, [limit])).rowCount ?? 0;
    },
  };
}

const settled = (rows: readonly any[]) => (rows as readonly { answer: Settled | null }[]).map(({ answer }) => answer ?? undefined);

/** Asks again for the items whose answer was overtaken by somebody else's write. */
export async function untilKnown<In, Out>(
  items: readonly In[],
  ask: (open: readonly In[]) => Promise<readonly (Out | undefined)[]>,
): Promise<Out[]> {
  const answers = new Array<Out>(items.length);
  let open = items.map((_, i) => i);
  for (let tries = 0; open.length > 0; tries++) {
    if (tries === mostTries)
      throw new ReceiverError('store', `Expected to see what holds ${open.length} keys, but they change all the time`);
    const outs = await ask(open.map((i) => items[i]!));
    if (outs.length !== open.length) throw new ReceiverError('store', `Expected ${open.length} rows, got ${outs.length}`);
    open = open.filter((i, at) => {
      const out = outs[at];
      if (out !== undefined) answers[i] = out;
      return out === undefined;
    });
  }
  return answers;
}

/** A verb's statement, or the call of the function that has it: see `partitions-schema.ts`. */
function verbSql(names: Names, verb: 'settle' | 'extend', first: string): string {
  const { sql, types } = verbs[verb];
  if (!names.partitions) return `with ${first},\n${sql(names)}`;
  const parameters = types.map((type, i) => `$${i + 1}::${type}`).join(', ');
  return `with ${first}
select v.answer from first cross join lateral ${names.schema}.${verb}(${parameters}, first::text) with ordinality as v(answer, at) order by v.at`;
}

/** What comes after `first` in each statement, and the types of its parameters. */
export const verbs: Readonly<Record<'settle' | 'extend', { sql(names: Names): string; readonly types: readonly string[] }>> = {
  settle: { sql: settleSql, types: ['bytea[]', 'text[]', 'smallint[]', 'float8[]', 'bool[]', 'bytea[]', 'bytea[]', 'bytea[]', 'bytea[]'] },
  extend: { sql: extendSql, types: ['bytea[]', 'text[]', 'float8[]'] },
};

/**
 * The rows of the items' claims that are current, locked one after another in the items' order, so that statements that meet don't block each other.
 * A row whose version is newer than the statement can be locked by it, but not updated: it has to be asked again.
 */
const heldSql = (names: Names, items: string): string => `held as materialized (
  select i.at, r.* from ${items} i cross join lateral (
    select ${placeOf(names, 'r')} from ${names.records} r
    where r.key = i.key and r.token = i.token and r.state = ${claimed} and r.expires_at > ${now} and ${isSound('r')}
    for no key update of r) r
)`;

/** Ends claims whose token is current. One that was not updated is `ok` if it ended in the same way before. Null: ask again. */
function settleSql(names: Names): string {
  const { records } = names;
  return `ends as materialized (
  select e.*, ${now} + retain_ms * interval '1 ms' as expires_at
  from first, unnest($1::bytea[], $2::text[], $3::smallint[], $4::float8[], $5::bool[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[])
    with ordinality as e(key, token, state, retain_ms, counted, result, reason, detail, label, at)
),
${heldSql(names, 'ends')},
ended as (
  update ${records} r set state = e.state, result = e.result, reason = e.reason, detail = e.detail, label = e.label,
    attempts = r.attempts - case when e.counted then 0 else 1 end, lease_until = ${now}, written_at = ${now}, expires_at = e.expires_at,
    expires_minute = ${bucketOf('e.expires_at')}
  from held join ends e using (at) where ${isAt(names, 'r', 'held')}
  returning held.at
)
select case
  when ended.at is not null then 'ok'
  when held.at is not null then null
  when r.key is null or r.token <> e.token or not ${isSound('r')} then 'fenced'
  when r.state = e.state then 'ok'
  when r.state = ${claimed} then null
  else 'fenced' end as answer
from ends e left join held using (at) left join ended using (at)
  left join lateral (select * from ${records} known where known.key = e.key and known.expires_at > ${now} limit 1) r on true
order by e.at`;
}

function endColumns(ends: readonly End[]): unknown[] {
  return [
    ends.map(({ key }) => keyToBytes(key)),
    ends.map(({ token }) => token),
    ends.map((end) => stateOf(end.as)),
    ends.map(({ retainMs }) => retainMs),
    ends.map((end) => end.as !== 'released' || end.counted),
    ...endTexts(ends),
  ];
}

/** Result, reason, detail and label, column by column. */
export function endTexts(ends: readonly End[]): unknown[] {
  return [
    ends.map((end) => (end.as === 'completed' && end.result !== undefined ? bytesOf(end.result) : null)),
    ends.map((end) => (end.as === 'parked' ? bytesOf(end.reason) : null)),
    ends.map((end) => (end.as === 'parked' ? bytesOf(end.detail) : null)),
    ends.map((end) => (end.as === 'parked' ? bytesOf(end.label) : null)),
  ];
}

function extendSql(names: Names): string {
  const { records } = names;
  const expires = `${now} + greatest(h.lease_ms * interval '1 ms', r.expires_at - r.written_at)`;
  return `holds as materialized (
  select h.* from first, unnest($1::bytea[], $2::text[], $3::float8[]) with ordinality as h(key, token, lease_ms, at)
),
${heldSql(names, 'holds')},
extended as (
  update ${records} r set lease_until = ${now} + h.lease_ms * interval '1 ms', written_at = ${now}, expires_at = ${expires},
    expires_minute = ${bucketOf(`(${expires})`)}
  from held join holds h using (at) where ${isAt(names, 'r', 'held')}
  returning held.at
)
select case when extended.at is not null then 'ok' when held.at is not null then null else 'fenced' end as answer
from holds h left join held using (at) left join extended using (at)
order by h.at`;
}

function holdColumns(holds: readonly Hold[]): unknown[] {
  return [holds.map(({ key }) => keyToBytes(key)), holds.map(({ token }) => token), holds.map(({ leaseMs }) => leaseMs)];
}
