import { bucketOf, isAt, type Names, newestFirst, placeOf } from './names.ts';
import { claimed, isFree, isSound, newColumns, newTimes, newValues, now, takenColumns, takenOver, takenTypes } from './rows.ts';

/*
 * The verbs, as functions of the database: planning one of them costs more than running it for one message (a millisecond, four for 16 partitions), and a
 * function's plan is kept by the session, without a statement that is prepared by name. They are planned without knowledge of what is in the tables, which
 * are empty at first, so scanning a whole one is ruled out, and of how many keys are asked for.
 *
 * Their parameters are texts: arrays as Postgres writes them, whose texts are in hex. See `lists.ts`.
 */

const planned = 'language plpgsql set jit = off set enable_seqscan = off set enable_memoize = off set plan_cache_mode = force_generic_plan';

/** One row, which the planner takes for a thousand: it would join batches of 500 row by row. */
const many = (list: string): string => `generate_series(cardinality(${list}), cardinality(${list}))`;

const bytes = (hex: string): string => `decode(${hex}, 'hex')`;
const text = (hex: string): string => `convert_from(${bytes(hex)}, 'UTF8')`;

/** What is asked for, as `a`. */
export const asked: string = `(
    select ${bytes('u.k')} as asked_key, ${bytes('u.f')} as asked_fingerprint, ${text('u.t')} as asked_token, u.lease_ms, u.retain_ms, u.at
    from ${many('keys')} cross join unnest(keys, $3::text[], $4::text[], $5::float8[], $6::float8[])
      with ordinality as u(k, f, t, lease_ms, retain_ms, at)
  ) a`;

/** What is told of `seen`, in the order in which it was asked. */
export const told: string = `select ${takenColumns()}
from seen left join taken on taken.key = seen.asked_key
order by at`;

/**
 * Takes the keys that are free, and tells what is known of the others as it was when the statement began: those it only reads, so that copies of
 * what is done neither wait for anybody nor write. $1 is what a taken key becomes: claimed, or completed inside of a unit. $7 is how long it waits for a key
 * that another transaction holds, as a `lock_timeout`; there is no answer then, and nothing has been taken. Without it the caller's own holds, and fails.
 *
 * A fence is drawn where the row is written, so that it is greater than any that the row has had. `limit 1` keeps the planner from reading the whole
 * table for a batch.
 */
export function takeFunction(names: Names, declare: string, query: string): string {
  return `create function ${names.schema}.take(smallint, text, text, text, text, text, text) returns table (${takenTypes})
${planned} as $body$
#variable_conflict use_column
declare
  keys text[] := $2;
  lock_timeout_before text := current_setting('lock_timeout');
${declare}begin
  if $7 is not null then
    perform set_config('lock_timeout', $7, true);
    if current_setting('synchronous_commit') = 'off' then perform set_config('synchronous_commit', 'on', true); end if;
  end if;
  for tries in 1 .. 8 loop
    begin
${query}
      exit;
    exception
      -- It was nobody's when this looked, and is somebody's now. What such a transaction sees does not move on, so it has to be run again.
      when unique_violation then
        if current_setting('transaction_isolation') <> 'read committed' then
          raise serialization_failure using message = 'Expected a key that nobody has seen, but it was recorded at the same time';
        end if;
      when lock_not_available or deadlock_detected then
        if $7 is null then raise; end if;
        exit;
    end;
  end loop;
  perform set_config('lock_timeout', lock_timeout_before, true);
end $body$;`;
}

/** When the lease of a new record of one that is asked for ends, and when it expires. */
export const askedTimes: string = newTimes(`(case $1 when ${claimed} then lease_ms else 0 end)`);

/** What a record that is written anew gets from the one who asks. */
const askedFor: Readonly<Record<string, string>> = {
  fingerprint: 'seen.asked_fingerprint',
  state: '$1',
  token: 'seen.asked_token',
  lease_until: 'seen.new_lease',
  written_at: now,
  expires_at: 'seen.new_expiry',
  expires_minute: bucketOf('seen.new_expiry'),
};

/** Takes over those of `seen` that are there and free; looked at again, because somebody may have come in between. `may` narrows both looks. */
export const takeOver = (
  names: Names,
  may: (r: string) => string,
): string => `update ${names.records} r set ${takenOver(names.fenceLiteral, (column) => askedFor[column]!)}
  from seen
  where ${isAt(names, 'r', 'seen')} and ${may('seen')}${isFree('seen', 'seen.asked_fingerprint', 'seen.asked_token')}
    and ${may('r')}${isFree('r', 'seen.asked_fingerprint', 'seen.asked_token')}
  returning r.key, r.fence, r.attempts, r.orphaned`;

const takeFromTable = (names: Names): string => `return query with seen as materialized (
  select r.*, a.*, ${askedTimes}
  from ${asked}
  left join lateral (select known.*, known.ctid as place from ${names.records} known where known.key = a.asked_key limit 1) r on true
),
again as (
  ${takeOver(names, () => '')}
),
born as (
  insert into ${names.records} as r (key, ${newColumns})
  select asked_key, ${newValues(names.fenceLiteral, '$1')} from seen where key is null order by at
  returning r.key, r.fence, r.attempts, r.orphaned
),
taken as (select * from again union all select * from born)
${told};`;

/** The functions of both layouts, but for how keys are taken in partitions. */
export function verbFunctions(names: Names): string {
  return `${names.partitions ? '' : takeFunction(names, '', takeFromTable(names))}
${verbFunction(names, 'settle', 9, settleSql(names))}
${verbFunction(names, 'extend', 3, extendSql(names))}
${amendFunction(names)}
create function ${names.schema}.refuse_commit() returns integer language plpgsql as $body$
begin
  raise invalid_transaction_termination using message = 'Expected only the unit to end its transaction, but a handler did';
end $body$;`;
}

/** The last parameter is the `lock_timeout`. */
function verbFunction({ schema }: Names, verb: string, lists: number, sql: string): string {
  return `create function ${schema}.${verb}(${'text, '.repeat(lists)}text) returns setof text
${planned} as $body$
declare
  keys text[] := $1;
begin
  perform set_config('lock_timeout', $${lists + 1}, true);
  if current_setting('synchronous_commit') = 'off' then perform set_config('synchronous_commit', 'on', true); end if;
  return query with ${sql};
end $body$;`;
}

/**
 * The rows of the items' claims that are current, locked one after another in the items' order, so that statements that meet don't block each other.
 * A row whose version is newer than the statement can be locked by it, but not updated: it has to be asked again.
 */
const heldSql = (names: Names, items: string): string => `held as materialized (
  select i.at, r.* from ${items} i cross join lateral (
    select ${placeOf(names, 'r')} from ${names.records} r
    where r.key = i.key and r.token = i.token and r.state = ${claimed} and r.expires_at > ${now} and ${isSound('r')}
    ${newestFirst(names, 'r')} limit 1 for no key update of r) r
)`;

/** How claims are to end, as `e`. */
const ends = `(
    select ${bytes('u.k')} as key, ${text('u.t')} as token, u.state, u.retain_ms, u.attempts, ${bytes('u.result')} as result,
      ${bytes('u.reason')} as reason, ${bytes('u.detail')} as detail, ${bytes('u.label')} as label, u.at
    from ${many('keys')} cross join unnest(keys, $2::text[], $3::smallint[], $4::float8[], $5::integer[], $6::text[], $7::text[], $8::text[], $9::text[])
      with ordinality as u(k, t, state, retain_ms, attempts, result, reason, detail, label, at)
  ) e`;

/**
 * Ends claims whose token is current. One that was not updated is `ok` if it ended in the same way before. Null: ask again. `attempts` is what is added
 * to them.
 */
function settleSql(names: Names): string {
  const { records } = names;
  return `ends as materialized (select e.*, ${now} + retain_ms * interval '1 ms' as expires_at from ${ends}),
${heldSql(names, 'ends')},
ended as (
  update ${records} r set state = e.state, result = e.result, reason = e.reason, detail = e.detail, label = e.label,
    attempts = r.attempts + e.attempts, lease_until = ${now}, written_at = ${now}, expires_at = e.expires_at,
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
  left join lateral (
    select * from ${records} known where held.at is null and known.key = e.key and known.expires_at > ${now} limit 1) r on true
order by e.at`;
}

function extendSql(names: Names): string {
  const { records } = names;
  const expires = `${now} + greatest(h.lease_ms * interval '1 ms', r.expires_at - r.written_at)`;
  return `holds as materialized (
  select ${bytes('u.k')} as key, ${text('u.t')} as token, u.lease_ms, u.at
  from ${many('keys')} cross join unnest(keys, $2::text[], $3::float8[]) with ordinality as u(k, t, lease_ms, at)
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

/** Changes what a unit has recorded itself. `attempts` is what they become. */
function amendFunction(names: Names): string {
  const { schema, records } = names;
  return `create function ${schema}.amend(${'text, '.repeat(8)}text) returns void
${planned} as $body$
declare
  keys text[] := $1;
  amended bigint;
begin
  update ${records} r set state = e.state, result = e.result, reason = e.reason, detail = e.detail, label = e.label,
    attempts = e.attempts, lease_until = ${now}, written_at = ${now}, expires_at = ${now} + e.retain_ms * interval '1 ms',
    expires_minute = ${bucketOf(`(${now} + e.retain_ms * interval '1 ms')`)}
  from ${ends}
    cross join lateral (
      select ${placeOf(names, 'own')} from ${records} own where own.key = e.key and own.token = e.token ${newestFirst(names, 'own')} limit 1) own
  where ${isAt(names, 'r', 'own')};
  get diagnostics amended = row_count;
  if amended <> cardinality(keys) then
    raise 'Expected to settle % records of this unit, got %', cardinality(keys), amended;
  end if;
end $body$;`;
}
