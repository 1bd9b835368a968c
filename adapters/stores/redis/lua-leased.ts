/*
 * Arguments come in runs: neighbours that share their terms, packed one after another into one text, because every argument of its own
 * would cost as much as the rest of the work. In compact mode the bytes of the keys follow each run's text.
 *
 * Replies tell the exceptions only: a claim that is not mentioned was given for a new record, a settle or extend is ok.
 */

/** Run: lease, retention, count, length of each token; keys and tokens; fingerprints; bytes of the keys. */
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
local function meet(i, key, fingerprint, token, leaseMs, retainMs)
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
  local leaseMs, retainMs, count, length = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  local text, fingerprints, digests = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  at = at + ${compact ? 7 : 6}
  local head = 'c' .. pack('>I6I6I6BI4I7B', now, now + leaseMs, retainMs, 0, 1, new, length)
  local keep = whole(max(leaseMs, retainMs))
  for n = 0, count - 1 do
    local p = n * (32 + length)
    local key, token = prefix .. sub(text, p + 1, p + 32), sub(text, p + 33, p + 32 + length)
    local fingerprint = sub(fingerprints, n * WIDTH + 1, n * WIDTH + WIDTH)
    i = i + 1
    if ${compact ? 'not recall(i, digests, n * 24 + 1, fingerprint) and ' : ''}not call('SET', key, head .. fingerprint .. token, 'NX', 'PX', keep) then
      meet(i, key, fingerprint, token, leaseMs, retainMs)
    end
  end
end
-- Written also when no claim was given: a call that only met what others wrote waits for the replicas of that too, if it waits at all.
call('SET', KEYS[1], whole(fence))
return reply
`;

/** Answers for a key that is in a bucket. */
const recall = /* lua */ `
local function recall(i, digests, at, fingerprint)
  local writtenAt, known = find(digests, at)
  if not writtenAt then
    if known then say(i, 'x', known) end
    return known
  end
  if known ~= '' and fingerprint ~= NONE and known ~= sub(fingerprint, 1, 8) then say(i, 'm') else say(i, 'd', now - writtenAt) end
  return true
end
`;

/** Run: how they end, retention, count, length of each token; keys and tokens; bytes of the keys; then a result, or reason, detail and label, each. */
const settle = (compact: boolean) => /* lua */ `
local endings = { d = 'dDk', D = 'dDk', r = 'r', u = 'r', p = 'p' }
local fenced = {}
local at, i = 1, 0
while at <= #ARGV do
  local kind, retainMs, count, length, text = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  ${compact ? 'local digests = ARGV[at + 5]' : ''}
  at = at + ${compact ? 6 : 5}
  local state, keep = kind == 'u' and 'r' or kind, retainMs
  ${compact ? "if kind == 'd' and retainMs == RETAIN then state, keep = 'k', RESEND end" : ''}
  local head = state .. pack('>I6I6I6', now, now, retainMs)
  keep = whole(keep)
  for n = 0, count - 1 do
    local p = n * (32 + length)
    local key, token = prefix .. sub(text, p + 1, p + 32), sub(text, p + 33, p + 32 + length)
    i = i + 1
    local body = ''
    if kind == 'D' then
      body, at = ARGV[at], at + 1
    elseif kind == 'p' then
      body, at = pack('>I4I4', #ARGV[at], #ARGV[at + 1]) .. ARGV[at] .. ARGV[at + 1] .. ARGV[at + 2], at + 3
    end
    local value = typed('GET', key)
    if value and sub(value, 1, 1) == 'c' and sub(value, 33 + WIDTH) == token then
      local rest = sub(value, 20)
      if kind == 'u' then rest = sub(value, 20, 20) .. pack('>I4', unpack('>I4', value, 21) - 1) .. sub(value, 25) end
      if kind == 'p' then enlist(sub(key, #prefix + 1), retainMs) end
      ${compact ? "if state == 'k' then remember(digests, n * 24 + 1, sub(value, 33, 32 + WIDTH)) end" : ''}
      call('SET', key, head .. rest .. body, 'PX', keep)
    else
      local r = value and read(key)
      if r and r.token == token and string.find(endings[kind], r.state, 1, true) then
        -- Sent again. Nothing is changed, but it is written, so that a call that waits for replicas waits for this too.
        call('SET', key, value, 'KEEPTTL')
      else
        fenced[#fenced + 1] = i
      end
    end
  end
end
return fenced
`;

/** Run: lease, count, length of each token; keys and tokens. */
const extend = () => /* lua */ `
local fenced = {}
local at, i = 1, 0
while at <= #ARGV do
  local leaseMs, count, length, text = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  at = at + 4
  for p = 0, (count - 1) * (32 + length), 32 + length do
    local key, token = prefix .. sub(text, p + 1, p + 32), sub(text, p + 33, p + 32 + length)
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
