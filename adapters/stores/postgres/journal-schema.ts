import type { Names } from './names.ts';

/** The tables of the journal. Entries go with their record: when it is deleted, and when a new one takes the place of one that has expired. */
export function journalStep({ schema, records, journal }: Names): string {
  return `create table ${journal} (
  key bytea not null,
  name text collate "C" not null,
  state smallint not null check (state between 1 and 3), -- 1 started, 2 done, 3 failed
  text bytea not null, -- bytes in UTF-8
  primary key (key, name)
);

create function ${schema}.journal_of_deleted() returns trigger language plpgsql as $body$
begin
  delete from ${journal} j using gone where j.key = gone.key;
  return null;
end $body$;
create trigger journal_of_deleted after delete on ${records} referencing old table as gone
  for each statement execute function ${schema}.journal_of_deleted();

create function ${schema}.journal_of_expired() returns trigger language plpgsql as $body$
begin
  delete from ${journal} j where j.key = old.key;
  return null;
end $body$;
create trigger journal_of_expired after update on ${records} for each row
  when (old.expires_at <= statement_timestamp() and new.expires_at > statement_timestamp())
  execute function ${schema}.journal_of_expired();`;
}
