-- Settle one call, once: give back its hold, add what it really used, write its usage record. Never refuses: what was
-- spent is always recorded, above the limit or in a period that is over. Settling again changes nothing.
-- Everything is checked and read before the first write, and the first write is one that a full server still allows.
-- `+ 0` makes a number of a text that is one, at half the price of tonumber.
--
-- KEYS  1 session, 2 usage stream, 3 totals of the day, 4 general; then for each draw: its counters, its holds.
-- ARGV  1 sid, 2 seq, 3 ack (every seq up to it is settled and known to be), 4 fingerprint of the amounts,
--       5 usage record (empty: none, a release), 6 records kept, 7 oldest record id kept,
--       8 totals' row, 9 input, 10 output, 11 cost_nanousd, 12 days_ms the totals are kept, 13 number of draws,
--       14 run id of the server that ack was learnt from: one that lost writes must not be told what it may forget;
--       for each draw 4 values: field, held amount (-1: whatever was held; 500@12: it was not
--         held for this call, but taken from what seq 12 of the same session holds, which shrinks by the actual amount), actual amount, expiry of the counters in ms (0: never).
-- Returns  OK, then for each draw: used (in a rolling window: of all its buckets), held | DUP | MISMATCH
local call, find, format, match = redis.call, string.find, string.format, string.match  -- a global is looked up at each use
local max, min = math.max, math.min
local HEAD, DRAW, MAX, KEPT_MS, HOUR_MS = 14, 4, 9007199254740991, 14 * 86400000, 3600000
local function int(i)
  local s = ARGV[i]
  local n = s and find(s, '^%d+$') and s + 0
  if not n or n > MAX then error('BURSAR argument ' .. i .. ' is not an amount') end
  return n
end
local function str(n) return format('%.0f', n) end

local sid, seq, ack, told, draws = ARGV[1], int(2), int(3), ARGV[5] ~= '', int(13)
local spent, names = { 1, int(9), int(10), int(11) }, { ARGV[8] .. '|n', ARGV[8] .. '|input', ARGV[8] .. '|output', ARGV[8] .. '|cost' }
int(6)
int(12)
if #KEYS ~= 4 + 2 * draws or #ARGV ~= HEAD + DRAW * draws then error('BURSAR wrong number of keys') end

local s = call('HMGET', KEYS[1], 'low', 'd:' .. ARGV[2], 'h:' .. ARGV[2])
local low = (s[1] or 0) + 0
if call('HGET', KEYS[4], 'gen') ~= ARGV[14] then ack = 0 end
local amounts = {}  -- granted, then what each draw held
for n in string.gmatch(s[3] or '', '%d+') do amounts[#amounts + 1] = n end
local D, own = {}, sid .. '.' .. ARGV[2] .. '|'
for i = 1, draws do
  local a, b, x = HEAD + (i - 1) * DRAW, KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  local field, held, known, actual, bound, hold, cover = ARGV[a + 1], ARGV[a + 2], amounts[i + 1], int(a + 3), 0, nil, nil
  local taken, from = match(held, '^(%d+)@(%d+)$')
  if from then
    local rest = match(call('HGET', KEYS[1], 'h:' .. from) or '', '|(%d+)$')
    local score = rest and call('ZSCORE', x, sid .. '.' .. from .. '|' .. rest)
    cover, bound = score and { from = from, rest = rest, score = score }, taken + 0
  elseif held ~= '-1' then
    bound = int(a + 2)
  end
  -- What we were told was held, or what this script's own notes say: a hold may have grown without its owner's knowledge.
  if held ~= '-1' and call('ZSCORE', x, own .. held) then hold = held end
  if known and known ~= held and call('ZSCORE', x, own .. known) then hold = known end
  local c = call('HMGET', b, field, 'held', 'n')
  D[i] = { b = b, x = x, field = field, actual = actual, expiry = int(a + 4), hold = hold, cover = cover, bound = hold and hold + 0 or bound,
    used = (c[1] or 0) + 0, held = (c[2] or 0) + 0, n = (c[3] or 0) + 0, fresh = not (c[1] or c[2]) }
end
local sums
if told then  -- of the wrong type, they fail here
  call('XLEN', KEYS[2])
  sums = call('HMGET', KEYS[3], unpack(names))
  for i = 1, 4 do sums[i] = sums[i] and tonumber(sums[i]) end  -- what is no number was nobody's sum
end

if s[2] and s[2] ~= ARGV[4] then return { 'MISMATCH' } end
if s[2] or low >= seq then return { 'DUP' } end

-- Terminal for good: a late or repeated command can never bring the hold back. Marks are forgotten that nobody will ask for.
local upto, gone = min(max(ack, low), low + 1000), { 'h:' .. ARGV[2] }
for n = low + 1, upto do gone[#gone + 1] = 'd:' .. str(n) end
local notes = { 'low', str(upto) }
if upto < seq then notes[3], notes[4] = 'd:' .. ARGV[2], ARGV[4] end
call('HDEL', KEYS[1], unpack(gone))
call('HSET', KEYS[1], unpack(notes))
-- What of a rolling window counts: its newest bucket, and the 60 before.
local function window(b)
  local all, newest, used = call('HGETALL', b), 0, 0
  for pass = 1, 2 do
    for j = 1, #all, 2 do
      local n = tonumber(match(all[j], '^u(%d+)$') or '-1')
      if pass == 1 then newest = max(newest, n) elseif n >= 0 and n >= newest - 60 then used = used + tonumber(all[j + 1]) end
    end
  end
  return used
end
local reply = { 'OK' }
for i = 1, draws do
  local d = D[i]
  local add = min(d.actual, max(0, MAX - d.used))  -- a counter that is full stays full
  if d.hold then
    call('ZREM', d.x, own .. d.hold)
    d.held = d.held - d.hold
  elseif d.cover then
    local from, rest, prefix = d.cover.from, d.cover.rest + 0, sid .. '.' .. d.cover.from .. '|'
    local less = min(add, rest)
    local left = str(rest - less)
    call('ZADD', d.x, d.cover.score, prefix .. left)  -- first, lest the key end and lose its time
    if less > 0 then call('ZREM', d.x, prefix .. d.cover.rest) end
    call('HSET', KEYS[1], 'h:' .. from, left .. '|' .. left)
    d.held = d.held - less
  elseif add > 0 then
    call('HINCRBY', d.b, 'late', str(add))
  end
  if add > d.bound then call('HINCRBY', d.b, 'over', str(add - d.bound)) end
  d.used = d.used + add
  -- One write: each is one more in the file and for the replicas.
  local held = d.hold or d.cover
  if held and add > 0 and told then
    call('HSET', d.b, 'held', str(d.held), d.field, str(d.used), 'n', str(d.n + 1))
  elseif held or add > 0 or told then
    local fields = held and { 'held', str(d.held) } or {}
    if add > 0 then fields[#fields + 1], fields[#fields + 2] = d.field, str(d.used) end
    if told then fields[#fields + 1], fields[#fields + 2] = 'n', str(d.n + 1) end
    call('HSET', d.b, unpack(fields))
  end
  if d.fresh and d.expiry > 0 and call('PTTL', d.b) == -1 then call('PEXPIREAT', d.b, ARGV[HEAD + i * DRAW]) end
  reply[2 * i], reply[2 * i + 1] = d.field == 'used' and d.used or window(d.b), d.held
end

if told then
  call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'id', sid .. '.' .. ARGV[2], 'r', ARGV[5])
  if ARGV[7] ~= '' then call('XTRIM', KEYS[2], 'MINID', '~', ARGV[7]) end
  local fields = {}
  for i = 1, 4 do
    local add = spent[i]
    local sum = (sums[i] or 0) + add
    if sum > MAX then  -- more than Lua counts
      redis.pcall('HINCRBY', KEYS[3], names[i], str(add))  -- a sum that is full stays so
    elseif add > 0 then
      fields[#fields + 1], fields[#fields + 2] = names[i], str(sum)
    end
  end
  if #fields > 0 then call('HSET', KEYS[3], unpack(fields)) end
  if not sums[1] then call('PEXPIRE', KEYS[3], ARGV[12]) end
end
-- An hour more than it must stay, so that not every call writes this.
if call('PTTL', KEYS[1]) < KEPT_MS then call('PEXPIRE', KEYS[1], KEPT_MS + HOUR_MS) end
return reply
