import type { CompactLayout } from './layout.ts';

/*
 * A record is one string, so that a claim or a settle is one write:
 *
 *    1     state: c claimed, r released, p parked, d completed, D completed with a result, k completed and in a bucket as well
 *    2     written at, 6 bytes      8  lease until, 6 bytes      14  retain for, 6 bytes      (milliseconds, of the server's clock)
 *   20     1 if orphaned, plus 2 if it has a journal (lua-journal.ts)     21  attempts, 4 bytes         25  fence, 7 bytes           32  length of the token
 *   33     fingerprint, then the token, then the result, or reason, detail and label after the lengths of the first two
 *
 * What an ending changes comes first, so that it is put before the rest as it is. Redis forgets the record by itself: its expiry is set with
 * each write.
 *
 * In compact mode completed records without results move to buckets. A bucket is a hash, small enough that Redis keeps it as a list. Its
 * fields are 12 bytes of the key, its values 5 bytes of time and 8 bytes of fingerprint, if there is one. An expired entry is answered as
 * absent; every eighth write of a bucket takes its expired entries out, and a bucket without writes expires as a whole. The
 * record itself stays for a while beside its entry, for the sake of its token.
 */

/** Fingerprints are text as they come, or bytes if they have to be short later. What stands for none can't be a fingerprint. */
const fingerprintWidth = (compact: boolean): number => (compact ? 18 : 22);

/** The start of every script: KEYS[1] is the shard's fence, and in the name of each key of the shard. Lua has 1-based positions. */
export function recordFunctions(compact: CompactLayout | undefined): string {
  const width = fingerprintWidth(compact !== undefined);
  return `${common(width, compact ? '\\255' : ' ')}${compact ? buckets(compact) : ''}`;
}

const common = (width: number, none: string) => /* lua */ `
local call, sub, pack, unpack, max = redis.call, string.sub, struct.pack, struct.unpack, math.max
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local prefix = sub(KEYS[1], 1, -6)
-- Length of the name of a record: the prefix and the key.
local NAME = #prefix + 32
local index = prefix .. 'parked'
local WIDTH, NONE = ${width}, string.rep('${none}', ${width})

-- What a command answered, or nil and a text if the key is of another type. Other errors are thrown.
local function typed(command, ...)
  local value = redis.pcall(command, ...)
  if type(value) ~= 'table' then return value end
  if not string.find(value.err, 'WRONGTYPE', 1, true) then error(value.err) end
  return nil, 'Expected another type of key for ' .. command
end

-- The record of a key; nil if there is none; nil and a text if it can't be read.
local function read(key)
  local value, damage = typed('GET', key)
  if not value then return nil, damage end
  if #value < 33 + WIDTH then return nil, 'Expected a record of ' .. 33 + WIDTH .. ' bytes or more, got ' .. #value end
  local writtenAt, leaseUntil, retainMs, orphaned, attempts, fence, length = unpack('>I6I6I6BI4I7B', value, 2)
  local state, last = sub(value, 1, 1), 32 + WIDTH + length
  local bodied = state == 'D' or state == 'p'
  if not string.find('crpdDk', state, 1, true) or fence == 0 or orphaned > 3 or length == 0 or leaseUntil < writtenAt
    or #value < last or (#value > last and not bodied) or (state == 'p' and #value < last + 8) then
    return nil, 'Expected a record as this library writes them'
  end
  return {
    state = state, writtenAt = writtenAt, leaseUntil = leaseUntil, retainMs = retainMs, orphaned = orphaned % 2, journal = orphaned >= 2,
    attempts = attempts, fence = fence, fingerprint = sub(value, 33, 32 + WIDTH), token = sub(value, 33 + WIDTH, last), body = sub(value, last + 1),
  }
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Fingerprints are compared only where both are known.
local function differ(a, b)
  return a ~= b and a ~= NONE and b ~= NONE
end

local function journalOf(key)
  return prefix .. '+' .. sub(key, #prefix + 1)
end

-- Every write of a record that was read ends here: it is kept for its retention from now, and never less than its lease.
local function write(key, r, leaseMs, retainMs)
  local flags, expiry = r.orphaned + (r.journal and 2 or 0), whole(now + max(leaseMs, retainMs))
  local times = pack('>I6I6I6BI4I7B', now, now + leaseMs, retainMs, flags, r.attempts, r.fence, #r.token)
  call('SET', key, r.state .. times .. r.fingerprint .. r.token .. r.body, 'PXAT', expiry)
  if r.journal then call('PEXPIREAT', journalOf(key), expiry) end
end

-- The index of parked records lives as long as the longest of them.
local function enlist(key, retainMs)
  call('ZADD', index, now, sub(key, #prefix + 1))
  if call('PTTL', index) < retainMs then call('PEXPIRE', index, whole(retainMs)) end
end

-- Reason, detail and label of a parked record.
local function why(r)
  local reason, detail = unpack('>I4I4', r.body)
  return sub(r.body, 9, 8 + reason), sub(r.body, 9 + reason, 8 + reason + detail), sub(r.body, 9 + reason + detail)
end
`;

const buckets = (c: CompactLayout) => /* lua */ `
local RETAIN, RESEND, BUCKET = ${c.retainMs}, ${c.resendMs}, #prefix + ${1 + c.bucketLetters}
-- Milliseconds of entries are counted from 2025 on, and fit until 2059.
local EPOCH = 1735689600000
if now < EPOCH or now >= EPOCH + 2^40 then error("the server's clock is out of range") end

-- One that can't be read never expires: it is not to be taken for absent.
local function writtenAtOf(entry)
  return #entry >= 5 and EPOCH + unpack('>I5', entry) or math.huge
end

-- When a key was completed, and its fingerprint; nil if it is not there; nil and a text if it can't be read.
local function find(bucket, field)
  local entry, damage = typed('HGET', bucket, field)
  if not entry then return nil, damage end
  if #entry ~= 5 and #entry ~= 13 then return nil, 'Expected an entry of 5 or 13 bytes, got ' .. #entry end
  local writtenAt = writtenAtOf(entry)
  if writtenAt + RETAIN > now then return writtenAt, sub(entry, 6) end
end

-- Takes expired entries out of a bucket. One that is far larger than it should be is cleaned by samples.
local function clean(bucket)
  local large = call('HLEN', bucket) > 512
  local entries = large and call('HRANDFIELD', bucket, 64, 'WITHVALUES') or call('HVALS', bucket)
  local fields
  for n = large and 2 or 1, #entries, large and 2 or 1 do
    if writtenAtOf(entries[n]) + RETAIN <= now then
      if not large then fields = fields or call('HKEYS', bucket) end
      call('HDEL', bucket, large and entries[n - 1] or fields[n])
    end
  end
end

local function remember(bucket, field, fingerprint)
  call('HSET', bucket, field, pack('>I5', now - EPOCH) .. (fingerprint == NONE and '' or sub(fingerprint, 1, 8)))
  -- A little longer than the entry needs, so that not every write has to prolong it.
  if call('PTTL', bucket) < RETAIN then call('PEXPIREAT', bucket, whole(now + RETAIN * 1.125)) end
  if string.byte(field, 1) % 8 == 0 then clean(bucket) end
end
`;
