import { refuseOption } from '../../../src/errors.ts';
import { identifier } from './client.ts';
import { type OutboxNames, outboxNames } from './outbox-schema.ts';

/** How long a partition takes new records. */
export type Partitions = 'daily' | 'weekly';

/** Where the store's tables are, and what they are like. */
export interface SchemaOptions {
  /** A schema of their own. Default: `idempotent_receiver`. */
  readonly schema?: string;
  /**
   * Keeps the records of each day, or week, in a partition of their own, which is dropped as a whole when all of them have expired: no deletes, and
   * nothing for autovacuum to do. Each new message is looked up in all partitions that are remembered (of 14 days: 16, or 4 if they are weekly).
   * Each transaction holds four locks for each partition, so beyond 14 days take weekly ones.
   * The same for `migrate` and for all that use the tables, whose role must own them. Default: one table, from which expired records are deleted.
   */
  readonly partitions?: Partitions;
}

/** The quoted names of everything that the store has in the database. */
export interface Names extends OutboxNames {
  readonly schema: string;
  readonly records: string;
  readonly fence: string;
  readonly journal: string;
  readonly meta: string;
  /** As a string literal, for `nextval`. */
  readonly fenceLiteral: string;
  /** Undefined: one table. */
  readonly partitions: Partitions | undefined;
}

export function namesOf({ schema = 'idempotent_receiver', partitions }: SchemaOptions): Names {
  const quoted = identifier('schema', schema);
  if (partitions !== undefined && partitions !== 'daily' && partitions !== 'weekly')
    refuseOption('partitions', '"daily", "weekly" or undefined', partitions);
  return {
    schema: quoted,
    records: `${quoted}.records`,
    fence: `${quoted}.fence`,
    journal: `${quoted}.journal`,
    meta: `${quoted}.meta`,
    fenceLiteral: `'${quoted}.fence'`,
    partitions,
    ...outboxNames(quoted),
  };
}

/**
 * Expiry in whole minutes, for the purge. Unlike the time itself it mostly stays the same when a claim is settled, so that the update touches no
 * index (a "heap-only tuple").
 */
export const bucketOf = (at: string): string => `ceil(date_part('epoch', ${at}) / 60)::integer`;

/** The place of a row, by which a statement finds it again that has read it: as columns, and as a condition on the row `r`. */
export const placeOf = ({ partitions }: Names, r: string): string => `${partitions ? `${r}.part, ` : ''}${r}.ctid as place`;
export const isAt = ({ partitions }: Names, r: string, seen: string): string =>
  `${partitions ? `${r}.part = ${seen}.part and ` : ''}${r}.ctid = ${seen}.place`;

/** The order in which partitions are looked through for a key: most of what is asked for again is new. With a limit the others are not touched. */
export const newestFirst = ({ partitions }: Names, r: string): string => (partitions ? `order by ${r}.part desc` : '');
