import { ReceiverError } from '../../../src/errors.ts';
import { identifier, type PgQueryable, sqlState } from './client.ts';
import { journalStep } from './journal-schema.ts';
import { type OutboxNames, outboxNames, outboxStep } from './outbox-schema.ts';

/** Where the store's tables are. */
export interface SchemaOptions {
  /** A schema of their own. Default: `idempotent_receiver`. */
  readonly schema?: string;
}

/** The quoted names of everything that the store has in the database. */
export interface Names extends OutboxNames {
  readonly schema: string;
  readonly records: string;
  readonly fence: string;
  readonly guard: string;
  readonly journal: string;
  readonly meta: string;
  /** As a string literal, for `nextval`. */
  readonly fenceLiteral: string;
}

export function namesOf({ schema = 'idempotent_receiver' }: SchemaOptions): Names {
  const quoted = identifier('schema', schema);
  return {
    schema: quoted,
    records: `${quoted}.records`,
    fence: `${quoted}.fence`,
    guard: `${quoted}.guard`,
    journal: `${quoted}.journal`,
    meta: `${quoted}.meta`,
    fenceLiteral: `'${quoted}.fence'`,
    ...outboxNames(quoted),
  };
}

/**
 * Expiry in whole minutes, for the purge. Unlike the time itself it mostly stays the same when a claim is settled, so that the update touches no
 * index (a "heap-only tuple").
 */
export const bucketOf = (at: string): string => `ceil(extract(epoch from ${at}) / 60)::integer`;

/** What each version of the schema adds to the one before. */
function steps(names: Names): readonly string[] {
  const { records, fence, guard } = names;
  return [
    `create sequence ${fence};

create table ${records} (
  key bytea primary key,
  fingerprint bytea not null,
  state smallint not null check (state between 1 and 4), -- 1 claimed, 2 released, 3 completed, 4 parked
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
  label bytea
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

create index records_expiry on ${records} (expires_minute);
create index records_parked on ${records} (written_at, key) where state = 4;

-- A row that is there when a unit's transaction commits is a violation: a handler that commits by itself fails, instead of tearing the unit apart.
create table ${guard} (
  unit bigint primary key,
  never bigint references ${guard} (unit) deferrable initially deferred
) with (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);`,
    outboxStep(names),
    journalStep(names),
  ];
}

/** The version of the schema that this code needs. */
export const schemaVersion = 3;

/**
 * The migration as text, for those who run their own: makes the tables, or brings them to this version. Safe to run again, and by several at
 * once; it is one transaction.
 */
export function migrationSql(options: SchemaOptions = {}): string {
  const names = namesOf(options);
  const all = steps(names).map(
    (sql, i) => `if version < ${i + 1} then
${sql}
end if;`,
  );
  return `do $migration$
declare version integer;
begin
perform pg_advisory_xact_lock(hashtextextended('idempotent-receiver ${names.schema}', 0));
create schema if not exists ${names.schema};
create table if not exists ${names.meta} (id boolean primary key default true check (id), version integer not null);
insert into ${names.meta} (version) values (0) on conflict do nothing;
select m.version into version from ${names.meta} m;
${all.join('\n')}
update ${names.meta} set version = ${schemaVersion} where ${names.meta}.version < ${schemaVersion};
end
$migration$;`;
}

/** Makes the store's tables, or brings them to this version. Run it at deployment, as a role that may create a schema. */
export async function migrate(pool: PgQueryable, options: SchemaOptions = {}): Promise<void> {
  await pool.query(migrationSql(options));
}

/** What may be lost without anybody having done wrong. */
interface Facts {
  readonly version: number;
  readonly fsync: string;
  readonly unlogged: boolean;
  readonly replica: boolean;
}

/**
 * Checks once, before the first call, that the tables are there, of this version, and keep what they are told.
 * @throws ReceiverError `store` with what to do
 */
export function checker(pool: PgQueryable, names: Names, options: { readonly allowDataLoss: boolean }): () => Promise<void> {
  let checked: Promise<void> | undefined;
  return () => {
    checked ??= check(pool, names, options).catch((error: unknown) => {
      // Whatever is wrong may be put right while the process runs.
      checked = undefined;
      throw error;
    });
    return checked;
  };
}

async function check(pool: PgQueryable, names: Names, { allowDataLoss }: { readonly allowDataLoss: boolean }): Promise<void> {
  const { version, fsync, unlogged, replica } = await facts(pool, names);
  const run = "run `migrate(pool)` of 'idempotent-receiver/postgres'";
  if (version < schemaVersion) throw refusal(`Expected the tables of version ${schemaVersion} in ${names.schema}, got ${version}: ${run}`);
  if (version > schemaVersion)
    throw refusal(`Expected the tables of version ${schemaVersion} in ${names.schema}, got ${version}: update this package`);
  if (replica) throw refusal('Expected the primary, got a server in recovery: a replica may be behind, and can not be written to');
  if (allowDataLoss) return;
  if (fsync !== 'on')
    throw refusal(
      `Expected \`fsync\` to be on, got ${fsync}: a crash would forget what was recorded, unless \`allowDataLoss\` says that it may`,
    );
  if (unlogged) throw refusal(`Expected ${names.records} to be logged: a crash would empty it, unless \`allowDataLoss\` says that it may`);
}

async function facts(pool: PgQueryable, names: Names): Promise<Facts> {
  try {
    const { rows } = await pool.query(
      `select version, current_setting('fsync') as fsync, pg_is_in_recovery() as replica,
  exists (select from pg_class where oid = $1::regclass and relpersistence <> 'p') as unlogged
from ${names.meta}`,
      [names.records],
    );
    return rows[0] as Facts;
  } catch (error) {
    const state = sqlState(error);
    if (state !== '42P01' && state !== '3F000') throw error;
    throw refusal(
      `Expected the store's tables in ${names.schema}, got none: run \`migrate(pool)\` of 'idempotent-receiver/postgres'`,
      error,
    );
  }
}

function refusal(message: string, cause?: unknown): ReceiverError {
  return new ReceiverError('store', message, cause === undefined ? undefined : { cause });
}
