/** The quoted names of what the outbox has in the database. */
export interface OutboxNames {
  readonly outbox: string;
  readonly outboxShards: string;
  readonly outboxParked: string;
  /** The channel that is notified, as a string literal. */
  readonly outboxChannel: string;
}

export function outboxNames(schema: string): OutboxNames {
  const channel = `'${schema.replaceAll('"', '')}.outbox'`;
  return {
    outbox: `${schema}.outbox`,
    outboxShards: `${schema}.outbox_shards`,
    outboxParked: `${schema}.outbox_parked`,
    outboxChannel: channel,
  };
}

/** Changing it would send messages that wait already by another way than those with the same ordering key that follow. */
export const shards = 16;

/**
 * By its ordering key, each message belongs to a shard of its destination. Who sends holds the lock of the shard's row, so that several relays
 * can't get in each other's way: locks on the messages themselves would let one relay skip a message that another one holds, and send its successor
 * first. Rows are deleted when they have been sent, so the table is small and mostly dead: it is vacuumed by count, not by share.
 */
export const outboxStep = ({ outbox, outboxShards, outboxParked }: OutboxNames): string => `
create table ${outbox} (
  destination text not null,
  shard smallint not null,
  position bigint generated always as identity,
  ordering_key text,
  id text not null,
  body bytea,
  headers text not null,
  published_at timestamptz not null default statement_timestamp(),
  failures integer not null default 0,
  retry_at timestamptz, -- null unless it is set aside
  primary key (destination, shard, position)
) with (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_insert_threshold = -1);

create index outbox_aside on ${outbox} (destination, shard, ordering_key) where retry_at is not null;

create table ${outboxShards} (destination text, shard smallint, primary key (destination, shard)) with (fillfactor = 50);

create table ${outboxParked} (
  number bigint generated always as identity primary key,
  destination text not null,
  shard smallint not null,
  ordering_key text,
  id text not null,
  body bytea,
  headers text not null,
  published_at timestamptz not null,
  failures integer not null,
  parked_at timestamptz not null default statement_timestamp(),
  reason text not null
);`;

/** FNV-1a, on UTF-16. As constant as the number of shards. */
export function shardOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % shards;
}
