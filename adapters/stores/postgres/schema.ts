import { ReceiverError, refuseOption } from '../../../src/errors.ts';
import { type PgQueryable, sqlState } from './client.ts';
import { verbFunctions } from './functions-schema.ts';
import { journalStep } from './journal-schema.ts';
import { type Names, namesOf, type SchemaOptions } from './names.ts';
import { outboxStep } from './outbox-schema.ts';
import { partitionedJournal, partitionedRecords, partitionFunctions, takeFromPartitions } from './partitions-schema.ts';
import { recordColumns, recordStorage } from './records-schema.ts';

/** What each version of the schema adds to the one before. */
function steps(names: Names): readonly string[] {
  const { records, fence, meta, partitions } = names;
  return [
    `create sequence ${fence};

${
  partitions
    ? partitionedRecords(names)
    : `create table ${records} (${recordColumns(1)},
  primary key (key)
) with (${recordStorage}, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);`
}

create index records_expiry on ${records} (expires_minute);
create index records_parked on ${records} (written_at, key) where state = 4;`,
    outboxStep(names),
    partitions ? partitionedJournal(names) : journalStep(names),
    `alter table ${meta} add partitions text, add part integer, add closed_part integer, add part_began_at timestamptz;
${partitions ? partitionFunctions(names) : ''}`,
    // Processes of version 4 go on: what they need (the table `guard`, functions of other parameters) is left to them where it was.
    `${partitions ? takeFromPartitions(names) : ''}${verbFunctions(names)}`,
  ];
}

/** The version of the schema that this code needs. */
export const schemaVersion = 5;

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
declare
  version integer;
  layout text;
begin
perform pg_advisory_xact_lock(hashtextextended('idempotent-receiver ${names.schema}', 0));
create schema if not exists ${names.schema};
create table if not exists ${names.meta} (id boolean primary key default true check (id), version integer not null);
insert into ${names.meta} (version) values (0) on conflict do nothing;
select m.version into version from ${names.meta} m;
${layoutCheck(names)}
${all.join('\n')}
update ${names.meta} set version = ${schemaVersion} where ${names.meta}.version < ${schemaVersion};
${names.partitions ? `update ${names.meta} set partitions = '${names.partitions}' where ${names.meta}.partitions is distinct from '${names.partitions}';\n` : ''}end
$migration$;`;
}

/** Daily partitions may become weekly ones, and weekly daily. From one table there is no way to partitions: it would have to be written anew. */
function layoutCheck({ meta, schema, partitions }: Names): string {
  const [wanted, there] = partitions ? ['partitions', 'one table'] : ['one table', 'partitions'];
  return `if version >= 4 then select m.partitions into layout from ${meta} m; end if;
if version > 0 and (layout is null) = ${partitions !== undefined} then
  raise exception 'Expected ${wanted} in ${schema}, got ${there}: leave the option \`partitions\` as it was, or take another schema';
end if;`;
}

/** Makes the store's tables, or brings them to this version. Run it at deployment, as a role that may create a schema. */
export async function migrate(pool: PgQueryable, options: SchemaOptions = {}): Promise<void> {
  if (typeof pool?.query !== 'function') refuseOption('pool', 'a pg Pool or Client', pool);
  await pool.query(migrationSql(options));
}

/** What may be lost without anybody having done wrong. */
interface Facts {
  readonly version: number;
  readonly fsync: string;
  readonly unlogged: boolean;
  readonly replica: boolean;
  readonly partitions: string | null;
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
  const { version, fsync, unlogged, replica, partitions } = await facts(pool, names);
  const run = "run `migrate(pool)` of 'idempotent-receiver/postgres'";
  if (version < schemaVersion) throw refusal(`Expected the tables of version ${schemaVersion} in ${names.schema}, got ${version}: ${run}`);
  if (version > schemaVersion)
    throw refusal(`Expected the tables of version ${schemaVersion} in ${names.schema}, got ${version}: update this package`);
  if (partitions !== (names.partitions ?? null))
    throw refusal(
      `Expected the tables in ${names.schema} to be ${layoutName(names.partitions)}, got ${layoutName(partitions)}: give \`partitions\` as \`migrate\` had it`,
    );
  if (replica) throw refusal('Expected the primary, got a server in recovery: a replica may be behind, and can not be written to');
  if (allowDataLoss) return;
  if (fsync !== 'on')
    throw refusal(
      `Expected \`fsync\` to be on, got ${fsync}: a crash would forget what was recorded, unless \`allowDataLoss\` says that it may`,
    );
  if (unlogged) throw refusal(`Expected ${names.records} to be logged: a crash would empty it, unless \`allowDataLoss\` says that it may`);
}

const layoutName = (partitions: string | null | undefined) => (partitions ? `${partitions} partitions` : 'one table');

async function facts(pool: PgQueryable, names: Names): Promise<Facts> {
  try {
    const { rows } = await pool.query(
      `select version, current_setting('fsync') as fsync, pg_is_in_recovery() as replica,
  to_jsonb(m) ->> 'partitions' as partitions,
  exists (
    select from pg_class where relpersistence <> 'p' and (oid = $1::regclass or oid in (select inhrelid from pg_inherits where inhparent = $1::regclass))
  ) as unlogged
from ${names.meta} m`,
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
