/** A statement that is wrong in one condition, and the clause that must notice: of the contract, or of those that Postgres has beside it. */
export interface StatementMutant {
  readonly name: string;
  /** What is there, and what is put in its place, wherever it is. */
  readonly from: string | RegExp;
  readonly to: string;
  /** Only in statements, and functions, that have this text too. */
  readonly where?: string;
  readonly breaks: string;
  /** The same statement where the records are in partitions; null if there is none. Otherwise the same is changed there. */
  readonly partitioned?: Partial<StatementMutant> | null;
}

const now = String.raw`statement_timestamp\(\)`;
const taking = 'lock_timeout_before';
const settle = 'r.attempts + e.attempts';
const extend = 'h.lease_ms';
/** In the functions of partitions. */
const upkeep = 'returns setof integer';
const drop = 'returns boolean';

export const statementMutants: readonly StatementMutant[] = [
  // Taking keys: what is free is asked twice, so both are wrong.
  {
    name: 'gives a claim whose lease runs to anybody',
    from: RegExp(`\\w+\\.lease_until <= ${now}\\)\\)`, 'g'),
    to: 'true))',
    breaks: '2a',
  },
  {
    name: 'does not know a token that holds the claim already',
    from: /\((?:r|seen)\.token = [\w.]+ or /g,
    to: '(false or ',
    breaks: '8a',
  },
  {
    name: 'makes a claim that is sent again a new one',
    from: 'fence = case when ',
    to: 'fence = case when false and ',
    where: taking,
    breaks: '8a',
  },
  {
    name: 'counts a claim that is sent again',
    from: /when r\.state = 1 and [^']*? then r\.attempts else/,
    to: 'when false then 1 else',
    breaks: '8a',
  },
  {
    name: 'takes a claim over without putting its own token there',
    from: /token = (?:excluded\.|seen\.asked_)token,/,
    to: 'token = r.token,',
    breaks: '7a',
  },
  { name: 'gives a new claim the fence of the old one', from: /else nextval\('[^']*'\) end/, to: 'else r.fence end', breaks: '6a' },
  { name: 'counts fences from 1 for each new record', from: /asked_token, nextval\('[^']*'\), 1/, to: 'asked_token, 1, 1', breaks: '6c' },
  { name: 'does not count attempts', from: 'else r.attempts + 1 end', to: 'else r.attempts end', breaks: '9a' },
  { name: 'does not tell a takeover', from: 'else r.state = 1 end', to: 'else false end', breaks: '9a' },
  { name: 'gives a released key to nobody', from: /(?:r|seen)\.state = 2 or/g, to: 'false or', breaks: '10a' },
  {
    name: 'does not compare fingerprints',
    from: /or \w+\.fingerprint = [\w.]+fingerprint\)/g,
    to: 'or true)',
    breaks: '4a released',
  },
  { name: 'takes no fingerprint for another one', from: /[\w.]+ingerprint = '' or /g, to: '', breaks: '4b' },
  {
    name: 'takes an expired record for one that is there',
    from: RegExp(`\\((?:r|seen)\\.expires_at <= ${now} or`, 'g'),
    to: '(false or',
    breaks: '11a completed',
    partitioned: { from: RegExp(`and seen\\.expires_at <= ${now} and r`), to: 'and false and r' },
  },
  // Where there are partitions, an expired record is deleted, and not taken over.
  {
    name: 'counts on from an expired record',
    from: RegExp(`r\\.expires_at <= ${now} then 1`),
    to: 'false then 1',
    breaks: '11a completed',
    partitioned: null,
  },
  { name: 'keeps the result of a record that has expired', from: ', result = null,', to: ',', breaks: 'stale result', partitioned: null },
  {
    name: 'makes records without an end',
    from: /greatest\(\(case[^)]*\), retain_ms\)/,
    to: '1e12',
    breaks: '11a claimed',
  },
  { name: 'takes a damaged record', from: /octet_length\(\w+\.fingerprint\) in \(0, 16\)/g, to: 'true', breaks: '15a' },
  {
    name: 'does not look again when somebody was faster',
    from: 'when unique_violation then',
    to: 'when division_by_zero then',
    breaks: '2a',
  },
  // Ending and extending.
  { name: 'does not compare the token of a settle', from: 'r.token = i.token', to: 'true', where: settle, breaks: '7a' },
  { name: 'does not compare the token of an extension', from: 'r.token = i.token', to: 'true', where: extend, breaks: '7a' },
  { name: 'settles what has ended', from: 'and r.state = 1', to: '', where: settle, breaks: '7d completed' },
  { name: 'extends what has ended', from: 'and r.state = 1', to: '', where: extend, breaks: '7d completed' },
  { name: 'settles what has expired', from: RegExp(`and r\\.expires_at > ${now}`), to: '', where: settle, breaks: '11b' },
  { name: 'extends what has expired', from: RegExp(`and r\\.expires_at > ${now}`), to: '', where: extend, breaks: '11b' },
  { name: 'does not compare the token of a settle that is sent again', from: 'r.token <> e.token', to: 'false', breaks: '7b completed' },
  {
    name: 'takes another ending for the same one',
    from: "when r.state = e.state then 'ok'",
    to: "when r.state <> 1 then 'ok'",
    breaks: '7d completed',
  },
  {
    name: 'fences a settle that is sent again',
    from: "when r.state = e.state then 'ok'",
    to: "when r.state = e.state then 'fenced'",
    breaks: '8c',
  },
  { name: 'keeps the attempt of an uncounted release', from: 'r.attempts + e.attempts', to: 'r.attempts', breaks: '9b' },
  { name: 'drops the result', from: 'result = e.result', to: 'result = null', where: settle, breaks: '3a' },
  { name: 'drops the reason', from: 'reason = e.reason', to: 'reason = null', where: settle, breaks: '10b' },
  {
    name: 'keeps the retention of the claim',
    from: 'expires_at = e.expires_at',
    to: 'expires_at = r.expires_at',
    where: settle,
    breaks: '11c',
  },
  {
    name: 'lets a record expire while its lease runs',
    from: "greatest(h.lease_ms * interval '1 ms', r.expires_at - r.written_at)",
    to: '(r.expires_at - r.written_at)',
    breaks: '11d',
  },
  {
    name: 'does not remember for longer what is extended',
    from: /expires_at = [^\n]*greatest\(h[^\n]*?,\n/,
    to: 'expires_at = r.expires_at,\n',
    breaks: '11e',
  },
  // Purging and administration.
  {
    name: 'purges the whole minute',
    from: RegExp(`and r\\.expires_at <= ${now} and r\\.lease_until <= ${now}\n`),
    to: '\n',
    breaks: 'minute',
    partitioned: null,
  },
  {
    name: 'purges more than it is asked to',
    from: 'limit $1 for update',
    to: 'limit $1 + 1000 for update',
    breaks: '12a',
    partitioned: null,
  },
  { name: 'replays what is not parked', from: 'and state = 4 and', to: 'and', breaks: 'admin c' },
  { name: 'forgets a claim whose lease runs', from: RegExp(`and \\(state <> 1 or lease_until <= ${now}\\)`), to: '', breaks: 'admin d' },
  { name: 'counts what has expired', from: RegExp(`where expires_at > ${now} group by`), to: 'group by', breaks: 'admin e' },
  { name: 'shows what has expired', from: RegExp(`where key = \\$1 and expires_at > ${now}$`), to: 'where key = $1', breaks: 'admin a' },
  // Units.
  { name: 'records as claimed, not as done', from: '.take(3::smallint', to: '.take(1::smallint', breaks: '20a' },
  {
    name: 'makes a claim that is held anew, instead of the record',
    from: 'fence = case when ',
    to: 'fence = case when false and ',
    where: taking,
    breaks: '20g',
  },
  { name: 'does not undo what a failed handler wrote', from: 'rollback to savepoint idempotent_message', to: 'select 1', breaks: '20c' },
  {
    name: 'keeps the attempt of an uncounted release in a unit',
    from: 'attempts = e.attempts',
    to: 'attempts = r.attempts',
    breaks: '20d',
  },
  { name: 'drops the result in a unit', from: 'result = e.result', to: 'result = null', where: 'own.token', breaks: '20d' },
  {
    name: 'does not notice a handler that commits',
    from: /for select [^;]*refuse_commit\(\)/,
    to: 'for select 1',
    breaks: 'commit',
  },
  {
    name: 'does not notice a handler that began another transaction',
    from: 'close idempotent_guard; commit',
    to: 'select 1; commit',
    breaks: 'begin',
  },
  { name: 'rolls back where it should commit', from: 'idempotent_guard; commit', to: 'idempotent_guard; rollback', breaks: '20a' },
  {
    name: 'takes a COMMIT without an answer for one that has happened',
    from: 'pg_xact_status($1::text::xid8) as status, exists (select from recorded) as recorded',
    to: "coalesce('committed', $1::text) as status, true as recorded",
    breaks: '21a',
  },
  {
    name: 'takes a COMMIT without an answer for one that has not happened',
    from: /exists \(select from [^)]*\) as recorded/,
    to: 'false as recorded',
    breaks: '21b',
  },
  {
    name: 'does not ask what has become of a transaction',
    from: 'pg_xact_status($1::text::xid8) as status',
    to: "coalesce('committed', $1::text) as status",
    breaks: '21a',
  },
];

/** Where records are in partitions. */
export const partitionMutants: readonly StatementMutant[] = [
  {
    name: 'leaves no mark in a partition that is not closed',
    from: 'marked := case when closed < newest - 1 then newest - 1 end;',
    to: 'marked := null;',
    breaks: 'border open',
  },
  {
    name: 'leaves no mark, and has looked before',
    from: 'marked := case when closed < newest - 1 then newest - 1 end;',
    to: 'marked := null;',
    breaks: 'border looked',
  },
  {
    name: 'takes a record for a mark',
    from: /do update set state = 0 where r\.state = 0/,
    to: 'do update set state = 0',
    breaks: 'border waits',
  },
  { name: 'takes a mark for a record', from: 'and known.state > 0', to: '', breaks: 'border mark' },
  {
    name: 'looks for a key in the newest partition only',
    from: 'and known.state > 0',
    to: 'and known.state > 0 and known.part = newest',
    breaks: 'border open',
  },
  { name: 'shares no lock of the partition', from: /perform pg_advisory_xact_lock_shared\([^\n]*/, to: '', breaks: 'border open' },
  { name: 'does not look again what is closed', from: 'exit when closed < newest;', to: 'exit when true;', breaks: 'border late' },
  { name: 'trusts an old snapshot', from: /perform from [^\n]* for share;/, to: 'null;', breaks: 'border snapshot' },
  {
    name: 'closes a partition that is written into',
    from: /and pg_try_advisory_xact_lock\([^\n]*\) then/,
    to: 'then',
    breaks: 'border open',
  },
  { name: 'has three partitions open', from: 'if m.closed_part = m.part - 1 and', to: 'if', breaks: 'border open' },
  {
    name: 'takes the place of an expired record that it could not delete',
    from: 'or gone.key is not null',
    to: 'or seen.expires_at <= statement_timestamp()',
    breaks: 'border expired',
  },
  { name: 'drops what has not expired', from: 'if alive then', to: 'if false then', where: upkeep, breaks: 'drop completed' },
  { name: 'drops without looking again', from: 'if alive then', to: 'if false then', where: drop, breaks: 'drop unseen' },
  { name: 'drops at once', from: /- 60 from/g, to: '- 0 from', breaks: 'drop later' },
  {
    name: 'does not wait for open transactions before it drops',
    from: 'pg_snapshot_xmin(pg_current_snapshot()) > p.ended and',
    to: '',
    breaks: 'drop revived',
  },
];
