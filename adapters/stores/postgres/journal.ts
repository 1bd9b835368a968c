import type { ClaimRef, Entries, Entry, EntryWrite, Journal } from '../../../src/effects/journal.ts';
import type { Settled } from '../../../src/store.ts';
import type { PgQueryable } from './client.ts';
import { sender, settingsSql } from './leased.ts';
import type { Names } from './names.ts';
import { inRounds } from './rounds.ts';
import { bytesOf, claimed, isSound, keyToBytes, textOf } from './rows.ts';

const states: readonly Entry['state'][] = ['started', 'done', 'failed'];

/**
 * The journal of steps: each verb is one statement for its whole batch. That entries go with their record is the schema's doing. `besideUnits`: units
 * leave a connection for it; its claims and entries are under a key of their own.
 */
export function journalVerbs(
  pool: PgQueryable,
  names: Names,
  lockTimeoutMs: number,
  besideUnits: boolean,
  ready: () => Promise<void>,
): Journal {
  const { records, journal } = names;
  /** Entries are in the partition of their record's number, under the same key. */
  const part = (of: string) => (names.partitions ? `${of}part, ` : '');
  const send = sender(pool);
  const now = 'statement_timestamp()';
  const holds = `r.token = c.token and r.state = ${claimed} and r.expires_at > ${now} and ${isSound('r')}`;
  // The records are locked, so that nobody takes a claim over before its entries are there; what is compared is what the lock was given on. In the order
  // in which they are asked for, as by all verbs.
  const writeSql = `with ${settingsSql(`'${lockTimeoutMs}'`)},
c as (
  select c.* from first, unnest($1::bytea[], $2::text[], $3::text[], $4::smallint[], $5::bytea[])
    with ordinality as c(key, token, name, state, text, at)
),
locked as materialized (
  select r.* from (select key from c group by key order by min(at)) k cross join lateral (
    select ${part('r.')}r.key, r.token, r.state, r.expires_at, r.fingerprint from ${records} r where r.key = k.key for no key update of r) r
),
held as (select ${part('r.')}c.* from c join locked r on r.key = c.key and ${holds}),
written as (
  insert into ${journal} as j (${part('')}key, name, state, text) select ${part('')}key, name, state, text from held order by key, name
  on conflict (${part('')}key, name) do update set state = excluded.state, text = excluded.text where j.state = ${stateOf('started')}
)
select held.at is not null as held from c left join held on held.at = c.at order by c.at`;
  const readSql = `select c.at::integer as at, r.key is not null as held, j.name, j.state, j.text
from unnest($1::bytea[], $2::text[]) with ordinality as c(key, token, at)
left join ${records} r on r.key = c.key and ${holds}
left join ${journal} j on j.key = r.key${names.partitions ? ' and j.part = r.part' : ''}`;

  async function writeRound(writes: readonly EntryWrite[]): Promise<Settled[]> {
    const columns = [
      ...claimColumns(writes),
      writes.map(({ name }) => name),
      writes.map(({ state }) => stateOf(state)),
      writes.map(({ text }) => bytesOf(text)),
    ];
    return ((await send(writeSql, columns)) as { held: boolean }[]).map(({ held }) => (held ? 'ok' : 'fenced'));
  }

  return {
    besideUnits,
    async writeEntries(writes) {
      if (writes.length === 0) return [];
      await ready();
      // Items of one round must not meet in an entry; those of one message mostly don't.
      const apart = writes.map((write) => ({ key: write.key + write.name, write }));
      return inRounds(apart, (round) => writeRound(round.map(({ write }) => write)));
    },

    async readEntries(claims) {
      if (claims.length === 0) return [];
      await ready();
      const entries = claims.map((): Entry[] | 'fenced' => 'fenced');
      for (const { at, held, name, state, text } of (await send(readSql, claimColumns(claims))) as RawEntry[]) {
        if (!held) continue;
        if (entries[at - 1] === 'fenced') entries[at - 1] = [];
        if (name !== null) (entries[at - 1] as Entry[]).push({ name, state: states[state! - 1]!, text: textOf(text) });
      }
      return entries satisfies Entries[];
    },
  };
}

interface RawEntry {
  readonly at: number;
  readonly held: boolean;
  readonly name: string | null;
  readonly state: number | null;
  readonly text: Buffer | null;
}

const stateOf = (state: Entry['state']): number => states.indexOf(state) + 1;

function claimColumns(claims: readonly ClaimRef[]): unknown[] {
  return [claims.map(({ key }) => keyToBytes(key)), claims.map(({ token }) => token)];
}
