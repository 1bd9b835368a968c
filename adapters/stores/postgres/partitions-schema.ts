import { asked, askedTimes, takeFunction, takeOver, told } from './functions-schema.ts';
import { bucketOf, isAt, type Names, newestFirst } from './names.ts';
import { recordColumns, recordStorage } from './records-schema.ts';
import { newColumns, newValues, now } from './rows.ts';

/*
 * Records in partitions, numbered in the order in which they were begun. A record stays in the partition that was the newest when its key was first
 * seen; a unique index holds within one partition only. Across their borders:
 *
 * - A key is looked up in all partitions, and written into the newest if it is in none. That is not enough for a transaction that has looked before
 *   another one committed. If both write into the same partition, its index makes one wait for the other.
 * - They don't while the newest partition is being replaced: one may still write into number n, while others begin to write into n + 1. Those write a mark
 *   into n too, so that they meet there. They no longer need to when n is closed: when all transactions that write into n without a mark have ended,
 *   which is known by an advisory lock that these share. Who gets that lock late looks again what is closed. Number n + 2 is not begun before.
 * - An expired record is absent, but it is deleted where its key is written anew, so that whoever still takes it for alive meets that.
 *
 * Which partition is the newest is said by a row, never by a clock. When it is time, `upkeep`, which `purge` calls, begins the next one, and until then
 * records go into the old one. A statement may have been planned before the newest partition was attached, so that it does not look there; so each is
 * attached one turn before it is used.
 *
 * The price: as many look-ups for a new key as there are partitions; one lock for each transaction; and expired records stay until the last one of
 * their partition has expired. The alternatives cost more, or more often: a lock for each key overflows the server's table of locks with units of 500; a table
 * of the keys in flight is written and vacuumed with every message; and a day that is part of the message is not known to a store.
 */

const partitionStorage = `${recordStorage}, autovacuum_vacuum_insert_threshold = -1`; // It is dropped before it would pay.

export const partitionedRecords = ({ schema, records }: Names): string => `create table ${records} (${recordColumns(0)},
  part integer not null,
  primary key (key, part)
) partition by list (part);

create table ${schema}.parts (
  part integer primary key,
  ended xid8, -- All of it has expired; when all transactions up to this one have ended, nobody can hold otherwise.
  dropping_at timestamptz
);`;

export const partitionedJournal = ({ schema, records, journal }: Names): string => `create table ${journal} (
  part integer not null,
  key bytea not null,
  name text collate "C" not null,
  state smallint not null check (state between 1 and 3), -- 1 started, 2 done, 3 failed
  text bytea not null, -- bytes in UTF-8
  primary key (part, key, name)
) partition by list (part);

create function ${schema}.journal_of_deleted() returns trigger language plpgsql as $body$
begin
  delete from ${journal} j where j.part = old.part and j.key = old.key;
  return null;
end $body$;
create trigger journal_of_deleted after delete on ${records} for each row execute function ${schema}.journal_of_deleted();`;

/** An advisory lock of this schema. */
const lockOf = ({ schema }: Names, part: string): string => `hashtext('idempotent-receiver ${schema}'), ${part}`;

export function partitionFunctions(names: Names): string {
  const { schema, meta } = names;
  return `${addPartition(names)}
${upkeepFunction(names)}
${dropFunction(names)}
update ${meta} set part = 1, closed_part = 0, part_began_at = ${now};
perform ${schema}.add_partition(1), ${schema}.add_partition(2);`;
}

const addPartition = ({ schema, records, journal }: Names): string => `create function ${schema}.add_partition(number integer) returns void
language plpgsql as $body$
begin
  execute format('create table ${records}_%1$s (like ${records} including all) with (${partitionStorage})', number);
  execute format('create table ${journal}_%1$s (like ${journal} including all)', number);
  perform ${schema}.attach_partition(number);
  insert into ${schema}.parts (part) values (number);
end $body$;

create function ${schema}.attach_partition(number integer) returns void language plpgsql as $body$
begin
  execute format('alter table ${records} attach partition ${records}_%1$s for values in (%1$s)', number);
  execute format('alter table ${journal} attach partition ${journal}_%1$s for values in (%1$s)', number);
end $body$;`;

/** How keys are taken in partitions: see `takeFunction`. */
export function takeFromPartitions(names: Names): string {
  const { records, fenceLiteral, meta } = names;
  return takeFunction(
    names,
    `  newest integer;
  closed integer;
  marked integer; -- the one before, if it is not closed
`,
    `  -- What such a transaction sees does not move on, so what it sees of this row has to stand still.
  if current_setting('transaction_isolation') <> 'read committed' then perform from ${meta} where id for share; end if;
  loop
    select m.part into newest from ${meta} m where id;
    perform pg_advisory_xact_lock_shared(${lockOf(names, 'newest')});
    select m.closed_part into closed from ${meta} m where id;
    exit when closed < newest;
  end loop;
  marked := case when closed < newest - 1 then newest - 1 end;
  return query with seen as materialized (
  select r.*, a.*, ${askedTimes}
  from ${asked}
  left join lateral (
    select known.*, known.ctid as place from ${records} known where known.key = a.asked_key and known.state > 0
    ${newestFirst(names, 'known')} limit 1) r on true
),
again as (
  ${takeOver(names, (r) => `${r}.expires_at > ${now} and `)}
),
gone as (
  delete from ${records} r using seen
  where ${isAt(names, 'r', 'seen')} and seen.expires_at <= ${now} and r.expires_at <= ${now} and r.state > 0
  returning r.key
),
fresh as (select seen.* from seen left join gone on gone.key = seen.asked_key where seen.key is null or gone.key is not null),
marks as (
  insert into ${records} as r (key, part, ${newColumns})
  select asked_key, marked, '', 0, '', 0, 0, false, ${now}, ${now}, '-infinity', 0 from fresh where marked is not null order by at
  on conflict (key, part) do update set state = 0 where r.state = 0
  returning r.key
),
born as (
  insert into ${records} as r (key, part, ${newColumns})
  select asked_key, newest, ${newValues(fenceLiteral, '$1')}
  from fresh where marked is null or exists (select from marks where marks.key = fresh.asked_key) order by at
  returning r.key, r.fence, r.attempts, r.orphaned
),
taken as (select * from again union all select * from born)
${told};`,
  );
}

/** So long after its last record has expired a partition is dropped, in minutes: no statement is under way that began when it had not. */
const graceMinutes = 60;

const hasRecords = (table: string): string => `select coalesce(max(expires_minute), 0) >= ${bucketOf(now)} - ${graceMinutes} from ${table}`;

/** Closes the partition before the newest, begins the next, and answers the numbers of those that may be dropped. One at a time. */
function upkeepFunction(names: Names): string {
  const { schema, records, meta } = names;
  const turn = (at: string) => `floor(extract(epoch from ${at}) / case m.partitions when 'weekly' then ${7 * 86_400} else ${86_400} end)`;
  return `create function ${schema}.upkeep() returns setof integer language plpgsql set lock_timeout = 100 as $body$
declare
  m record;
  p record;
  alive boolean;
begin
  select * into m from ${meta} where id for update skip locked;
  if not found then return; end if;
  if m.closed_part < m.part - 1 and pg_try_advisory_xact_lock(${lockOf(names, 'm.part - 1')}) then
    m.closed_part := m.part - 1;
    update ${meta} set closed_part = m.closed_part;
  end if;
  if m.closed_part = m.part - 1 and ${turn(now)} > ${turn('m.part_began_at')} then
    perform ${schema}.add_partition(m.part + 2);
    update ${meta} set part = m.part + 1, part_began_at = ${now};
  end if;
  for p in select * from ${schema}.parts where part <= m.closed_part order by part loop
    execute format($sql$${hasRecords(`${records}_%s`)}$sql$, p.part) into alive;
    if alive then
      update ${schema}.parts set ended = null where part = p.part and ended is not null;
    elsif p.ended is null or p.ended > pg_current_xact_id() then
      update ${schema}.parts set ended = pg_current_xact_id() where part = p.part;
    elsif pg_snapshot_xmin(pg_current_snapshot()) > p.ended and (p.dropping_at is null or abs(extract(epoch from ${now} - p.dropping_at)) > 600) then
      update ${schema}.parts set dropping_at = ${now} where part = p.part;
      return next p.part;
    end if;
  end loop;
end $body$;`;
}

/** Drops a partition that has been detached, so that nobody can change it any more; or puts it back, and says false. */
function dropFunction({ schema, records, journal }: Names): string {
  return `create function ${schema}.drop_partition(number integer) returns boolean language plpgsql set lock_timeout = 1000 as $body$
declare
  alive boolean;
begin
  execute format($sql$${hasRecords(`${records}_%s`)}$sql$, number) into alive;
  if alive then
    perform ${schema}.attach_partition(number);
    update ${schema}.parts set ended = null, dropping_at = null where part = number;
    return false;
  end if;
  execute format('drop table ${records}_%1$s, ${journal}_%1$s', number);
  delete from ${schema}.parts where part = number;
  return true;
end $body$;`;
}
