/*
 * Arguments come in runs: neighbours that share their terms, packed one after another into one text, because every argument of its own
 * would cost as much as the rest of the work. In compact mode each item's bucket follows its token, and the bytes of its key come extra.
 *
 * Replies tell the exceptions only: a claim that is not mentioned was given for a new record, a settle or extend is ok.
 */

/** Run: lease, retention, count, length of each token; names, fingerprints and tokens. Compact: names, tokens and buckets; fingerprints; fields. */
const claim = (compact: boolean) => /* lua */ `
-- Microseconds since 1970 or more: it grows also when the counter was lost. Exact until the year 2255.
local fence = max((call('GET', KEYS[1]) or 0) + 1, time[1] * 1000000 + time[2])
if fence > 9007199254740000 then error('the fence in ' .. KEYS[1] .. ' is too large') end
local new = fence
local reply = {new}
local function say(...)
  for _, value in ipairs({...}) do reply[#reply + 1] = value end
end

-- Asks for a key that has a record.
local function meet(i, key, owner, leaseMs, retainMs)
  local fingerprint, token = sub(owner, 1, WIDTH), sub(owner, WIDTH + 1)
  local r, damage = read(key)
  if not r then return say(i, 'x', damage) end
  if differ(r.fingerprint, fingerprint) then return say(i, 'm') end
  if r.state == 'p' then
    local reason, detail = why(r)
    return say(i, 'p', r.attempts, reason, detail)
  end
  if r.state == 'D' then return say(i, 'D', now - r.writtenAt, r.body) end
  if r.state == 'd' or r.state == 'k' then return say(i, 'd', now - r.writtenAt) end
  if r.state == 'c' and r.token ~= token and r.leaseUntil > now then return say(i, 'b', r.leaseUntil - now) end
  if r.state == 'r' or r.token ~= token then
    if r.fingerprint == NONE then r.fingerprint = fingerprint end
    fence = max(fence, r.fence + 1)
    r.orphaned = r.state == 'c' and 1 or 0
    r.state, r.token, r.fence, r.attempts = 'c', token, fence, r.attempts + 1
  end
  write(key, r, leaseMs, retainMs)
  say(i, 'c', r.fence, r.attempts, r.orphaned)
end
${compact ? recall : ''}
local at, i = 1, 0
while at <= #ARGV do
  local leaseMs, retainMs, count, length, text = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  ${compact ? 'local fingerprints, fields = ARGV[at + 5], ARGV[at + 6]' : ''}
  at = at + ${compact ? 7 : 5}
  local head = 'c' .. pack('>I6I6I6BI4I7B', now, now + leaseMs, retainMs, 0, 1, new, length)
  local expiry = whole(now + max(leaseMs, retainMs))
  local size, last = NAME + length + ${compact ? 'BUCKET, NAME + length' : 'WIDTH, NAME + length + WIDTH'}
  for n = 0, count - 1 do
    local p = n * size
    local key, owner = sub(text, p + 1, p + NAME), sub(text, p + NAME + 1, p + last)
    i = i + 1
    ${compact ? 'owner = sub(fingerprints, n * WIDTH + 1, n * WIDTH + WIDTH) .. owner' : ''}
    if ${compact ? 'not recall(i, sub(text, p + last + 1, p + size), sub(fields, n * 12 + 1, n * 12 + 12), owner) and ' : ''}not call('SET', key, head .. owner, 'NX', 'PXAT', expiry) then
      meet(i, key, owner, leaseMs, retainMs)
    end
  end
end
-- Written also when no claim was given: WAIT promises to wait only for what its own connection has written, and for what came before it.
call('SET', KEYS[1], whole(fence))
return reply
`;

/** Answers for a key that is in a bucket. */
const recall = /* lua */ `
local function recall(i, bucket, field, owner)
  local writtenAt, known = find(bucket, field)
  if not writtenAt then
    if known then say(i, 'x', known) end
    return known
  end
  local fingerprint = sub(owner, 1, WIDTH)
  if known ~= '' and fingerprint ~= NONE and known ~= sub(fingerprint, 1, 8) then say(i, 'm') else say(i, 'd', now - writtenAt) end
  return true
end
`;

/** Run: how they end, retention, count, length of each token; names and tokens; then a result, or reason, detail and label, each. Compact: names, tokens and buckets; fields. */
const settle = (compact: boolean) => /* lua */ `
local endings = { d = 'dDk', D = 'dDk', r = 'r', u = 'r', p = 'p' }
local pcall, byte, CLAIMED = redis.pcall, string.byte, string.byte('c')
local fenced = {}
local at, i = 1, 0
while at <= #ARGV do
  local kind, retainMs, count, length, text = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  ${compact ? 'local fields = ARGV[at + 5]' : ''}
  at = at + ${compact ? 6 : 5}
  local state, keepMs = kind == 'u' and 'r' or kind, retainMs
  ${compact ? "if kind == 'd' and retainMs == RETAIN then state, keepMs = 'k', RESEND end" : ''}
  local head = state .. pack('>I6I6I6', now, now, retainMs)
  local expiry = whole(now + keepMs)
  local size = NAME + length${compact ? ' + BUCKET' : ''}
  for n = 0, count - 1 do
    local p = n * size
    local key, token = sub(text, p + 1, p + NAME), sub(text, p + NAME + 1, p + NAME + length)
    i = i + 1
    local body
    if kind == 'D' then
      body, at = ARGV[at], at + 1
    elseif kind == 'p' then
      body, at = pack('>I4I4', #ARGV[at], #ARGV[at + 1]) .. ARGV[at] .. ARGV[at + 1] .. ARGV[at + 2], at + 3
    end
    local value = pcall('GET', key)
    if type(value) == 'string' and byte(value) == CLAIMED and sub(value, 33 + WIDTH) == token then
      if body then
        call('SET', key, head .. sub(value, 20) .. body)
        if kind == 'p' then enlist(key, retainMs) end
      else
        ${compact ? "if state == 'k' then remember(sub(text, p + NAME + length + 1, p + size), sub(fields, n * 12 + 1, n * 12 + 12), sub(value, 33, 32 + WIDTH)) end" : ''}
        call('SETRANGE', key, '0', head)
        if kind == 'u' then call('SETRANGE', key, '20', pack('>I4', unpack('>I4', value, 21) - 1)) end
      end
      call('PEXPIREAT', key, expiry)
      if byte(value, 20) >= 2 then
        if state == 'r' or state == 'p' then call('PEXPIREAT', journalOf(key), expiry) else call('UNLINK', journalOf(key)) end
      end
    else
      local r = read(key)
      if r and r.token == token and string.find(endings[kind], r.state, 1, true) then
        -- Sent again. Nothing is changed, but it is written, for the sake of WAIT, as the fence is.
        call('SET', key, value, 'KEEPTTL')
      else
        fenced[#fenced + 1] = i
      end
    end
  end
end
return fenced
`;

/** Run: lease, count, length of each token; names and tokens. */
const extend = () => /* lua */ `
local fenced = {}
local at, i = 1, 0
while at <= #ARGV do
  local leaseMs, count, length, text = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  at = at + 4
  local size = NAME + length
  for n = 0, count - 1 do
    local p = n * size
    local key, token = sub(text, p + 1, p + NAME), sub(text, p + NAME + 1, p + size)
    i = i + 1
    local r = read(key)
    if r and r.state == 'c' and r.token == token then
      write(key, r, leaseMs, r.retainMs)
    else
      fenced[#fenced + 1] = i
    end
  end
end
return fenced
`;

export const leasedScripts: Readonly<Record<'claim' | 'settle' | 'extend', (compact: boolean) => string>> = { claim, settle, extend };
