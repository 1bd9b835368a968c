import type { ScriptName } from '../../../adapters/stores/redis/scripts.ts';

/** A script that is wrong in one line, and the clause of the store contract that must notice. */
export interface ScriptMutant {
  readonly name: string;
  readonly script: ScriptName;
  /** What is there, once, and what is put in its place. */
  readonly from: string;
  readonly to: string;
  readonly breaks: string;
  /** In compact mode, with completed records in their buckets only. */
  readonly compact?: boolean;
}

export const scriptMutants: readonly ScriptMutant[] = [
  {
    name: 'takes a record that is there for none',
    script: 'claim',
    from: `head .. owner, 'NX', 'PXAT'`,
    to: `head .. owner, 'PXAT'`,
    breaks: '2a',
  },
  {
    name: 'gives a claim whose lease runs to anybody',
    script: 'claim',
    from: `if r.state == 'c' and r.token ~= token and r.leaseUntil > now then`,
    to: 'if false then',
    breaks: '2a',
  },
  {
    name: 'answers busy to the token that holds the claim: the double of a command that was sent again',
    script: 'claim',
    from: `if r.state == 'c' and r.token ~= token and r.leaseUntil > now then`,
    to: `if r.state == 'c' and r.leaseUntil > now then`,
    breaks: '8a',
  },
  {
    name: 'takes a claim over without putting its own token there',
    script: 'claim',
    from: `if r.state == 'r' or r.token ~= token then`,
    to: `if r.state == 'r' then`,
    breaks: '7a',
  },
  {
    name: 'makes records without an end',
    script: 'claim',
    from: `, 'NX', 'PXAT', expiry)`,
    to: `, 'NX')`,
    breaks: '11a claimed',
  },
  {
    name: 'forgets a claim when its lease has ended, and its attempts with it',
    script: 'claim',
    from: 'local expiry = whole(now + max(leaseMs, retainMs))',
    to: 'local expiry = whole(now + leaseMs)',
    breaks: '5b',
  },
  {
    name: 'forgets a claim while its lease runs',
    script: 'extend',
    from: 'whole(now + max(leaseMs, retainMs))',
    to: 'whole(now + retainMs)',
    breaks: '11d',
  },
  {
    name: 'counts fences in the record only',
    script: 'claim',
    from: `max((call('GET', KEYS[1]) or 0) + 1, time[1] * 1000000 + time[2])`,
    to: '1',
    breaks: '6b',
  },
  {
    name: 'gives a new claim the fence of the old one',
    script: 'claim',
    from: `token, fence, r.attempts + 1`,
    to: `token, r.fence, r.attempts + 1`,
    breaks: '6a',
  },
  { name: 'does not count attempts', script: 'claim', from: 'r.attempts + 1', to: 'r.attempts', breaks: '9a' },
  {
    name: 'does not compare fingerprints',
    script: 'claim',
    from: `if differ(r.fingerprint, fingerprint) then`,
    to: 'if false then',
    breaks: '4a completed',
  },
  {
    name: 'takes no fingerprint for another one',
    script: 'claim',
    from: 'return a ~= b and a ~= NONE and b ~= NONE',
    to: 'return a ~= b',
    breaks: '4b',
  },
  {
    name: 'takes a record that can not be read for a released one',
    script: 'claim',
    from: `if not r then return say(i, 'x', damage) end`,
    to: `if not r then r = { state = 'r', token = '', fence = 0, attempts = 0, fingerprint = NONE, body = '' } end`,
    breaks: '15a',
  },
  {
    name: 'does not compare the token on settle',
    script: 'settle',
    from: `byte(value) == CLAIMED and sub(value, 33 + WIDTH) == token then`,
    to: 'byte(value) == CLAIMED then',
    breaks: '7a',
  },
  {
    name: 'does not look at the state on settle',
    script: 'settle',
    from: `byte(value) == CLAIMED and sub(value, 33 + WIDTH) == token then`,
    to: 'sub(value, 33 + WIDTH) == token then',
    breaks: '7d completed',
  },
  {
    name: 'does not compare the token of a settle that is sent again',
    script: 'settle',
    from: 'if r and r.token == token and string.find',
    to: 'if r and string.find',
    breaks: '7b completed',
  },
  {
    name: 'takes another ending for the same one',
    script: 'settle',
    from: 'if r and r.token == token and string.find(endings[kind], r.state, 1, true) then',
    to: 'if r and r.token == token then',
    breaks: '7d completed',
  },
  {
    name: 'fences a settle that is sent again',
    script: 'settle',
    from: 'if r and r.token == token and string.find(endings[kind], r.state, 1, true) then',
    to: 'if false then',
    breaks: '8c',
  },
  { name: 'keeps the attempt of an uncounted release', script: 'settle', from: `if kind == 'u' then`, to: 'if false then', breaks: '9b' },
  {
    name: 'keeps the retention of the claim',
    script: 'settle',
    from: `call('PEXPIREAT', key, expiry)`,
    to: `if body then call('PEXPIREAT', key, expiry) end`,
    breaks: '11c',
  },
  { name: 'drops the result', script: 'settle', from: `head .. sub(value, 20) .. body`, to: `head .. sub(value, 20)`, breaks: '3a' },
  {
    name: 'does not compare the token on extend',
    script: 'extend',
    from: `if r and r.state == 'c' and r.token == token then`,
    to: `if r and r.state == 'c' then`,
    breaks: '7a',
  },
  {
    name: 'extends a claim that has ended',
    script: 'extend',
    from: `if r and r.state == 'c' and r.token == token then`,
    to: 'if r and r.token == token then',
    breaks: '7d completed',
  },
  { name: 'replays what is not parked', script: 'replay', from: `if not r or r.state ~= 'p' then`, to: 'if not r then', breaks: 'admin c' },
  {
    name: 'forgets a claim whose lease runs, when asked',
    script: 'forget',
    from: `if r and r.state == 'c' and r.leaseUntil > now then return 0 end`,
    to: '',
    breaks: 'admin d',
  },
  {
    name: 'does not put completed records into buckets',
    script: 'settle',
    from: `if state == 'k' then remember(`,
    to: `if false then remember(`,
    breaks: '11a completed',
    compact: true,
  },
  {
    name: 'does not look into buckets',
    script: 'claim',
    from: `not recall(i, sub(text, p + last + 1, p + size), sub(fields, n * 12 + 1, n * 12 + 12), owner) and `,
    to: '',
    breaks: '11a completed',
    compact: true,
  },
  {
    name: 'does not compare fingerprints in buckets',
    script: 'claim',
    from: `if known ~= '' and fingerprint ~= NONE and known ~= sub(fingerprint, 1, 8) then`,
    to: 'if false then',
    breaks: '4a completed',
    compact: true,
  },
  {
    name: 'remembers what is in buckets for longer than its retention',
    script: 'claim',
    from: 'if writtenAt + RETAIN > now then return writtenAt, sub(entry, 6) end',
    to: 'return writtenAt, sub(entry, 6)',
    breaks: '11a completed',
    compact: true,
  },
  {
    name: 'forgets the record, but not its entry in a bucket',
    script: 'forget',
    from: `typed('HDEL', ARGV[2], ARGV[3])`,
    to: `typed('HGET', ARGV[2], ARGV[3])`,
    breaks: 'admin d',
    compact: true,
  },
];
