/*
 * The journal of a record is a hash beside it: names of entries, and the first letter of their state before their text. Bit 2 of the
 * record's byte 20 tells that there is one, so a new record has none, whatever an older one has left behind. Whoever writes the record
 * lets the journal live as long; a record that is completed needs it no more.
 */

/** Writes, each: key, token, name, letter, text. Tells which of them were fenced. */
const writeEntries = () => /* lua */ `
local fenced = {}
for at = 1, #ARGV, 5 do
  local key = prefix .. ARGV[at]
  local r = read(key)
  if r and r.state == 'c' and r.token == ARGV[at + 1] then
    local journal = journalOf(key)
    if not r.journal then call('DEL', journal) end
    local known = r.journal and call('HGET', journal, ARGV[at + 2])
    if not known or sub(known, 1, 1) == 's' then call('HSET', journal, ARGV[at + 2], ARGV[at + 3] .. ARGV[at + 4]) end
    if not r.journal then call('SETRANGE', key, '19', string.char(r.orphaned + 2)) end
    call('PEXPIREAT', journal, whole(max(r.leaseUntil, r.writtenAt + r.retainMs)))
  else
    fenced[#fenced + 1] = (at + 4) / 5
  end
end
return fenced
`;

/** Claims, each: key, token. Tells of each: 0 if it was fenced, or its names and texts. */
const readEntries = () => /* lua */ `
local reply = {}
for at = 1, #ARGV, 2 do
  local key = prefix .. ARGV[at]
  local r = read(key)
  if r and r.state == 'c' and r.token == ARGV[at + 1] then
    reply[#reply + 1] = r.journal and call('HGETALL', journalOf(key)) or {}
  else
    reply[#reply + 1] = 0
  end
end
return reply
`;

export const journalScripts: Readonly<Record<'writeEntries' | 'readEntries', (compact: boolean) => string>> = { writeEntries, readEntries };
