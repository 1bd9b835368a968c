import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, DedupStore, End, Hold, Settled } from '../../../src/store.ts';
import { isConflict, type PgQueryable } from './client.ts';
import { hexList, hexOf, hexOfText, numberList, parameters } from './lists.ts';
import { bucketOf, type Names } from './names.ts';
import { dropExpiredPartitions } from './partitions.ts';
import { inRounds } from './rounds.ts';
import { answerOf, claimed, columnsOf, keyToBytes, stateOf, type Taken, takeSql } from './rows.ts';

/** So often a statement is sent again that met another one, before it is given up. Each time at least one of them has gone on. */
const mostTries = 8;

/** What a key is answered that another transaction holds: it will not take long, but nobody knows how long. */
const lockedMs = 1_000;

/** How long a statement waits for a key once one of its batch has been waited for as long as may be: many may be held. */
const impatientMs = 5;

/** What `synchronous_commit` is for the store's own transactions. */
export const durableSql = "case current_setting('synchronous_commit') when 'off' then 'on' else current_setting('synchronous_commit') end";

/**
 * The first common table expression of each statement. It sets what the statement needs, and for it alone, because a pool like PgBouncer may give each
 * to another session. `lockTimeout` is SQL.
 */
export const settingsSql = (lockTimeout: string): string =>
  `first as materialized (select set_config('lock_timeout', ${lockTimeout}, true),
  set_config('synchronous_commit', ${durableSql}, true))`;

/** Sends statements that may be sent again: they act for tokens, or on nothing but what has expired. */
export function sender(pool: PgQueryable): (sql: string, values: readonly unknown[]) => Promise<readonly any[]> {
  return async (sql, values) => {
    for (let tries = 1; ; tries++) {
      try {
        return (await pool.query(sql, values)).rows;
      } catch (error) {
        if (!isConflict(error) || tries >= mostTries) throw error;
      }
    }
  };
}

/** The leased way: each verb is one statement for its whole batch, unless it meets others. */
export function leasedVerbs(pool: PgQueryable, names: Names, lockTimeoutMs: number, ready: () => Promise<void>): DedupStore {
  const send = sender(pool);
  const claimSql = takeSql(names, claimed, parameters(6));
  const verbSql = (verb: string, lists: number) =>
    `select v.answer from ${names.schema}.${verb}(${parameters(lists)}, '${lockTimeoutMs}') with ordinality as v(answer, at) order by v.at`;
  const settleSql = verbSql('settle', 9);
  const extendSql = verbSql('extend', 3);
  const purgeSql = `with ${settingsSql(`'${lockTimeoutMs}'`)}
delete from ${names.records} where ctid = any (array(
  select r.ctid from first, ${names.records} r
  where r.expires_minute <= ${bucketOf('statement_timestamp()')} and r.expires_at <= statement_timestamp() and r.lease_until <= statement_timestamp()
  order by r.expires_minute limit $1 for update of r skip locked))`;

  const take = (asks: readonly Ask[], patienceMs: number): Promise<(Answer | undefined)[]> =>
    halved(asks, patienceMs, async (some, patience) => (await send(claimSql, [...columnsOf(some), `${patience}`])) as Taken[]);

  return {
    async claim(asks) {
      if (asks.length === 0) return [];
      await ready();
      return inRounds(asks, (round) => untilKnown(round, (open) => take(open, lockTimeoutMs)));
    },

    async settle(ends) {
      if (ends.length === 0) return [];
      await ready();
      return inRounds(ends, (round) =>
        untilKnown(round, async (open) =>
          settled(
            await send(
              settleSql,
              endColumns(open, (end) => -uncounted(end)),
            ),
          ),
        ),
      );
    },

    async extend(holds) {
      if (holds.length === 0) return [];
      await ready();
      return inRounds(holds, (round) => untilKnown(round, async (open) => settled(await send(extendSql, holdColumns(open)))));
    },

    async purge(limit) {
      await ready();
      if (names.partitions) return dropExpiredPartitions(pool, names);
      return (await pool.query(purgeSql, [limit])).rowCount ?? 0;
    },
  };
}

const settled = (rows: readonly any[]) => (rows as readonly { answer: Settled | null }[]).map(({ answer }) => answer ?? undefined);

/**
 * Keys that another transaction holds must not keep the others from their answer: a batch without an answer is halved until they are alone. Answers
 * undefined for those that have to be asked again.
 */
export async function halved(
  asks: readonly Ask[],
  patienceMs: number,
  take: (asks: readonly Ask[], patienceMs: number) => Promise<readonly Taken[]>,
): Promise<(Answer | undefined)[]> {
  const rows = await take(asks, patienceMs);
  if (rows.length === asks.length) return rows.map((row, i) => answerOf(asks[i]!, row));
  if (rows.length > 0) throw new ReceiverError('store', `Expected ${asks.length} rows, got ${rows.length}`);
  if (asks.length === 1) return [{ state: 'busy', remainingMs: lockedMs }];
  const half = asks.length >> 1;
  return [...(await halved(asks.slice(0, half), impatientMs, take)), ...(await halved(asks.slice(half), impatientMs, take))];
}

/** Asks again for the items whose answer was overtaken by somebody else's write. */
export async function untilKnown<In, Out>(
  items: readonly In[],
  ask: (open: readonly In[]) => Promise<readonly (Out | undefined)[]>,
): Promise<Out[]> {
  const answers = new Array<Out>(items.length);
  let open = items.map((_, i) => i);
  for (let tries = 0; open.length > 0; tries++) {
    if (tries === mostTries)
      throw new ReceiverError('store', `Expected to see what holds ${open.length} keys, but they change all the time`);
    const outs = await ask(open.map((i) => items[i]!));
    if (outs.length !== open.length) throw new ReceiverError('store', `Expected ${open.length} rows, got ${outs.length}`);
    open = open.filter((i, at) => {
      const out = outs[at];
      if (out !== undefined) answers[i] = out;
      return out === undefined;
    });
  }
  return answers;
}

/** The parameters of a settle, column by column. `attemptsOf`: what is added to them, or what they become. */
export function endColumns<E extends End>(ends: readonly E[], attemptsOf: (end: E) => number): string[] {
  return [
    hexList(ends, ({ key }) => hexOf(keyToBytes(key))),
    hexList(ends, ({ token }) => hexOfText(token)),
    numberList(ends, (end) => stateOf(end.as)),
    numberList(ends, ({ retainMs }) => retainMs),
    numberList(ends, attemptsOf),
    hexList(ends, (end) => (end.as === 'completed' && end.result !== undefined ? hexOfText(end.result) : undefined)),
    hexList(ends, (end) => (end.as === 'parked' ? hexOfText(end.reason) : undefined)),
    hexList(ends, (end) => (end.as === 'parked' ? hexOfText(end.detail) : undefined)),
    hexList(ends, (end) => (end.as === 'parked' ? hexOfText(end.label) : undefined)),
  ];
}

/** What an end takes back: a release that is not counted. */
export const uncounted = (end: End): number => (end.as === 'released' && !end.counted ? 1 : 0);

const holdColumns = (holds: readonly Hold[]): string[] => [
  hexList(holds, ({ key }) => hexOf(keyToBytes(key))),
  hexList(holds, ({ token }) => hexOfText(token)),
  numberList(holds, ({ leaseMs }) => leaseMs),
];
