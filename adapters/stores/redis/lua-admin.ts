/** Keys, one after another; in compact mode buckets and fields. Tells of each that has a record: position, state, attempts, fence, age, remaining time, and why it is parked. */
const view = (compact: boolean) => /* lua */ `
local reply = {}
local function say(...)
  for _, value in ipairs({...}) do reply[#reply + 1] = value end
end
for n = 0, #ARGV[1] / 32 - 1 do
  local r, damage = read(prefix .. sub(ARGV[1], n * 32 + 1, n * 32 + 32))
  if r then
    say(n + 1, r.state, r.attempts, r.fence, now - r.writtenAt, max(r.leaseUntil, r.writtenAt + r.retainMs) - now)
    if r.state == 'p' then say(why(r)) end
  elseif damage then
    say(n + 1, 'x', damage)
  ${
    compact
      ? /* lua */ `
  else
    local writtenAt, damage = find(sub(ARGV[2], n * BUCKET + 1, n * BUCKET + BUCKET), sub(ARGV[3], n * 12 + 1, n * 12 + 12))
    if writtenAt then say(n + 1, 'k', 0, 0, now - writtenAt, writtenAt + RETAIN - now) elseif damage then say(n + 1, 'x', damage) end`
      : ''
  }
  end
end
return reply
`;

/** A key. Tells whether it was parked. */
const replay = () => /* lua */ `
local r = read(prefix .. ARGV[1])
if not r or r.state ~= 'p' then return 0 end
r.state, r.attempts, r.body = 'r', 0, ''
write(prefix .. ARGV[1], r, 0, r.retainMs)
call('ZREM', index, ARGV[1])
return 1
`;

/** A key; in compact mode its bucket and field. Tells whether there was a record. One that can't be read may be forgotten: that is how people get rid of it. */
const forget = (compact: boolean) => /* lua */ `
local r, damage = read(prefix .. ARGV[1])
if r and r.state == 'c' and r.leaseUntil > now then return 0 end
local found = call('DEL', prefix .. ARGV[1])
call('ZREM', index, ARGV[1])
${
  compact
    ? /* lua */ `
local writtenAt, unreadable = find(ARGV[2], ARGV[3])
if writtenAt or unreadable then found = 1 end
local _, foreign = typed('HDEL', ARGV[2], ARGV[3])
if foreign then call('DEL', ARGV[2]) end`
    : ''
}
return found
`;

/** Keys, one after another. Tells how many are claimed, released, completed, parked; those that are in a bucket are counted there. */
const count = () => /* lua */ `
local counts = { c = 0, r = 0, d = 0, p = 0, k = 0 }
for p = 0, #ARGV[1] - 32, 32 do
  local r = read(prefix .. sub(ARGV[1], p + 1, p + 32))
  if r then
    local state = r.state == 'D' and 'd' or r.state
    counts[state] = counts[state] + 1
  end
end
return { counts.c, counts.r, counts.d, counts.p }
`;

/** Names of buckets. Tells how many of their entries have not expired. */
const countCompact = () => /* lua */ `
local live = 0
for _, name in ipairs(ARGV) do
  for _, entry in ipairs(call('HVALS', prefix .. name)) do
    if writtenAtOf(entry) + RETAIN > now then live = live + 1 end
  end
end
return live
`;

/** Takes out of the index of parked records what is parked no more, from a rank on, at most so many. Tells how many it looked at, and took out. */
const sweep = () => /* lua */ `
local keys = call('ZRANGE', index, ARGV[1], ARGV[1] + ARGV[2] - 1)
local gone = 0
for _, key in ipairs(keys) do
  local r, damage = read(prefix .. key)
  if not damage and (not r or r.state ~= 'p') then gone = gone + call('ZREM', index, key) end
end
return { #keys, gone }
`;

type Body = (compact: boolean) => string;

export const adminScripts: Readonly<Record<'view' | 'replay' | 'forget' | 'count' | 'countCompact' | 'sweep', Body>> = {
  view,
  replay,
  forget,
  count,
  countCompact,
  sweep,
};
