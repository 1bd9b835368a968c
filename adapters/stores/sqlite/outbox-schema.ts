import type { Tables } from './schema.ts';

/**
 * Positions are never used twice, so that nobody can mean an older message by one. Bodies are kept as bytes. Times are milliseconds since the
 * Unix epoch; `retry_at` is null for messages that are not set aside, which are nearly all.
 */
export const outboxDdl = (t: Tables): string => `
  create table if not exists ${t.outbox} (
    position integer primary key autoincrement, destination text not null, ordering_key text, id text not null, body blob, headers text not null,
    published_at integer not null, failures integer not null default 0, retry_at integer
  ) strict;
  create index if not exists ${t.outbox}_next on ${t.outbox} (destination);
  create index if not exists ${t.outbox}_aside on ${t.outbox} (destination, ordering_key) where retry_at is not null;
  create table if not exists ${t.outboxParked} (
    number integer primary key autoincrement, destination text not null, ordering_key text, id text not null, body blob, headers text not null,
    published_at integer not null, failures integer not null, parked_at integer not null, reason text not null
  ) strict;
  create table if not exists ${t.outboxLease} (destination text primary key, token text not null, until integer not null) strict, without rowid;`;
