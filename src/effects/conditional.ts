import { ReceiverError, refuseOption, show } from '../errors.ts';
import { rowsOf, type SqliteTx, type SqlText, type SqlTx } from './sql.ts';

/**
 * Writes that the resource itself refuses when they come twice, late, or from somebody who has been overtaken. Each is one statement, so nothing
 * can come between the question and the write, and works on PostgreSQL and SQLite. Each is there as a function, and as text and values for those
 * who run their statements in another way. Names of tables and columns are quoted, a table's schema may stand before a dot.
 *
 * On PostgreSQL in READ COMMITTED a write waits for a transaction that holds the row, and then looks again; above it, the server answers 40001.
 */

/** Columns and their values. */
export type Columns = Readonly<Record<string, unknown>>;

/**
 * Inserts a row unless there is one already, by whatever is unique in the table. True if it was inserted. Make the id of the effect the primary key,
 * and the effect happens once, whoever tries how often.
 */
export async function insertOnce(tx: SqlTx | SqliteTx, table: string, row: Columns): Promise<boolean> {
  return (await rowsOf(tx, insertOnceSql(table, row))).length > 0;
}

/**
 * Changes a row if it still has the version that was read, and counts it up. False if others have changed it: read it again. Or if you have, and got
 * no answer: what is added to what was read is added twice then, unless the row, or a record in the same transaction, tells that it was you.
 */
export async function updateIf(tx: SqlTx | SqliteTx, table: string, update: UpdateIf): Promise<boolean> {
  return (await rowsOf(tx, updateIfSql(table, update))).length > 0;
}

/** What {@link updateIf} changes. */
export interface UpdateIf {
  /** Which row. */
  readonly where: Columns;
  /** The version that it was read with. */
  readonly version: number | bigint;
  readonly set: Columns;
  /** The column that holds it. @default 'version' */
  readonly versionColumn?: string;
}

/**
 * Writes a row unless one with a greater fence is there: a worker that was overtaken changes nothing any more. The row remembers the fence. For handlers
 * with `guarantee: 'fenced'`, whose `ctx.fence` grows with each new claim of the same message. So the row has to belong to the message: fences of
 * two messages can't be compared, and a row that many messages change needs `updateIf`, or a transaction. The fence's column must not be null.
 *
 * @throws ReceiverError `claim-lost` if the resource has refused it
 */
export async function fencedWrite(tx: SqlTx | SqliteTx, table: string, write: FencedWrite): Promise<void> {
  if ((await rowsOf(tx, fencedWriteSql(table, write))).length > 0) return;
  throw new ReceiverError(
    'claim-lost',
    `A write to ${table} with fence ${write.fence} was refused: somebody with a greater one has been there`,
  );
}

/** What {@link fencedWrite} writes. */
export interface FencedWrite {
  /** Which row, by its primary key or something else that is unique. */
  readonly key: Columns;
  readonly fence: number;
  /** All other columns that a new row needs. */
  readonly set: Columns;
  /** The column that holds it. @default 'fence' */
  readonly fenceColumn?: string;
}

/** {@link insertOnce} as text: one row is answered if it was inserted, else none. */
export function insertOnceSql(table: string, row: Columns): SqlText {
  const { names, values } = columns('row', row);
  return {
    text: `insert into ${tableOf(table)} (${list(names)}) values (${places(names)}) on conflict do nothing returning 1 as done`,
    values,
  };
}

/** {@link updateIf} as text: one row is answered if it was changed, else none. */
export function updateIfSql(table: string, { where, version, set, versionColumn = 'version' }: UpdateIf): SqlText {
  if (typeof version !== 'bigint' && !Number.isSafeInteger(version)) refuseOption('version', 'a whole number', version);
  const [changed, wanted, column] = [columns('set', set), found('where', where), quoted(versionColumn)];
  if (changed.names.includes(versionColumn)) refuseOption('set', `without ${show(versionColumn)}, which is counted up`, versionColumn);
  const assignments = [...changed.names.map((name, i) => `${quoted(name)} = $${i + 1}`), `${column} = ${column} + 1`];
  const conditions = [...wanted.names, versionColumn].map((name, i) => `${quoted(name)} = $${changed.names.length + i + 1}`);
  return {
    text: `update ${tableOf(table)} set ${assignments.join(', ')} where ${conditions.join(' and ')} returning 1 as done`,
    values: [...changed.values, ...wanted.values, version],
  };
}

/** {@link fencedWrite} as text: one row is answered if it was written, else none. */
export function fencedWriteSql(table: string, { key, fence, set, fenceColumn = 'fence' }: FencedWrite): SqlText {
  if (!Number.isSafeInteger(fence)) refuseOption('fence', 'the `ctx.fence` of a handler', fence);
  const unique = found('key', key).names;
  const moved = unique.find((name) => Object.hasOwn(set, name));
  if (moved !== undefined) refuseOption('set', `without ${show(moved)}, which is in the key`, moved);
  const { names, values } = columns('key and set', { ...key, ...set, [fenceColumn]: fence });
  const written = names.filter((name) => !unique.includes(name)).map((name) => `${quoted(name)} = excluded.${quoted(name)}`);
  return {
    text: `insert into ${tableOf(table)} as own (${list(names)}) values (${places(names)})
on conflict (${list(unique)}) do update set ${written.join(', ')} where own.${quoted(fenceColumn)} <= excluded.${quoted(fenceColumn)} returning 1 as done`,
    values,
  };
}

function columns(option: string, given: Columns): { readonly names: readonly string[]; readonly values: readonly unknown[] } {
  const names = typeof given === 'object' && given !== null ? Object.keys(given) : [];
  if (names.length === 0) refuseOption(option, 'columns with their values', given);
  const missing = names.find((name) => given[name] === undefined);
  if (missing !== undefined) refuseOption(`${option}.${missing}`, 'a value, or null', undefined);
  return { names, values: Object.values(given) };
}

/** Columns by which a row is found. */
function found(option: string, given: Columns): ReturnType<typeof columns> {
  const all = columns(option, given);
  const missing = all.names.find((name) => given[name] === null);
  if (missing !== undefined) refuseOption(`${option}.${missing}`, 'a value, because nothing equals null', null);
  return all;
}

function quoted(name: string): string {
  if (typeof name !== 'string' || name === '' || name.includes('\0')) refuseOption('name', 'the name of a table or column', name);
  return `"${name.replaceAll('"', '""')}"`;
}

/** `a.b` is a table in a schema. */
const tableOf = (name: string): string => String(name).split('.').map(quoted).join('.');

const list = (names: readonly string[]): string => names.map(quoted).join(', ');
const places = (names: readonly string[]): string => names.map((_, i) => `$${i + 1}`).join(', ');
