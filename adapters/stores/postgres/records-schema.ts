/** The columns of a record. `lowestState` 0: with marks, see `partitions-schema.ts`. */
export const recordColumns = (lowestState: 0 | 1): string => `
  key bytea not null,
  fingerprint bytea not null,
  state smallint not null check (state between ${lowestState} and 4), -- 1 claimed, 2 released, 3 completed, 4 parked
  token text not null,
  fence bigint not null,
  attempts integer not null,
  orphaned boolean not null,
  lease_until timestamptz not null,
  written_at timestamptz not null,
  expires_at timestamptz not null,
  expires_minute integer not null,
  result bytea,
  -- Texts as bytes in UTF-8, because text can't hold a NUL.
  reason bytea,
  detail bytea,
  label bytea`;

/** With room for a settle beside its claim, in the same page. */
export const recordStorage = 'fillfactor = 80, autovacuum_analyze_scale_factor = 0.05';
