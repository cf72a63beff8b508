-- Settle one call, once: give back its hold, add what it really used, write its usage record. Never refuses: what was
-- spent is always recorded, above the limit or in a period that is over. Settling again changes nothing.
-- Everything is checked and read before the first write, and the first write is one that a full server still allows.
--
-- KEYS  1 session, 2 usage stream, 3 totals of the day, 4 general; then for each draw: its counters, its holds.
-- ARGV  1 sid, 2 seq, 3 ack (every seq up to it is settled and known to be), 4 fingerprint of the amounts,
--       5 usage record (empty: none, a release), 6 records kept, 7 oldest record id kept,
--       8 totals' row, 9 input, 10 output, 11 cost_nanousd, 12 days_ms the totals are kept, 13 number of draws,
--       14 run id of the server that ack was learnt from: one that lost writes must not be told what it may forget;
--       for each draw 4 values: field, held amount (-1: whatever was held; 500@12: it was not
--         held for this call, but taken from what seq 12 of the same session holds, which shrinks by the actual amount), actual amount, expiry of the counters in ms (0: never).
-- Returns  OK, then for each draw: used (in a rolling window: of all its buckets), held | DUP | MISMATCH
local call, find, format, tonumber = redis.call, string.find, string.format, tonumber  -- a global is looked up at each use
local HEAD, DRAW, MAX = 14, 4, 9007199254740991
local function int(i)
  local s = ARGV[i]
  local n = s and #s <= 16 and find(s, '^%d+$') and tonumber(s)
  if not n or n > MAX then error('BURSAR argument ' .. i .. ' is not an amount') end
  return n
end
local function str(n) return format('%.0f', n) end

local seq, ack, draws = int(2), int(3), int(13)
for _, i in ipairs({ 6, 9, 10, 11, 12 }) do int(i) end
if #KEYS ~= 4 + 2 * draws or #ARGV ~= HEAD + DRAW * draws then error('BURSAR wrong number of keys') end

local s = call('HMGET', KEYS[1], 'low', 'd:' .. ARGV[2], 'h:' .. ARGV[2])
local low, told = tonumber(s[1] or '0'), ARGV[5] ~= ''
if call('HGET', KEYS[4], 'gen') ~= ARGV[14] then ack = 0 end
local amounts = {}  -- granted, then what each draw held
for n in string.gmatch(s[3] or '', '%d+') do amounts[#amounts + 1] = n end
local D = {}
for i = 1, draws do
  local a = HEAD + (i - 1) * DRAW
  local d = { b = KEYS[3 + 2 * i], x = KEYS[4 + 2 * i], field = ARGV[a + 1], actual = int(a + 3), expiry = int(a + 4) }
  local taken, from = string.match(ARGV[a + 2], '^(%d+)@(%d+)$')
  if from then
    local rest = string.match(call('HGET', KEYS[1], 'h:' .. from) or '', '|(%d+)$')
    d.from, d.rest, d.cover = from, rest, rest and ARGV[1] .. '.' .. from .. '|' .. rest
    d.score = rest and call('ZSCORE', d.x, d.cover)
  elseif ARGV[a + 2] ~= '-1' then
    int(a + 2)
  end
  local member = ARGV[1] .. '.' .. ARGV[2] .. '|'
  -- What we were told was held, or what this script's own notes say: a hold may have grown without its owner's knowledge.
  local known = amounts[i + 1]
  if ARGV[a + 2] ~= '-1' and call('ZSCORE', d.x, member .. ARGV[a + 2]) then d.hold = ARGV[a + 2] end
  if known and known ~= ARGV[a + 2] and call('ZSCORE', d.x, member .. known) then d.hold = known end
  d.member = d.hold and member .. d.hold
  d.bound = tonumber(d.hold or taken or (ARGV[a + 2] ~= '-1' and ARGV[a + 2]) or '0')
  local c = call('HMGET', d.b, d.field, 'held', 'n')
  d.used, d.held, d.n, d.fresh = tonumber(c[1] or '0'), tonumber(c[2] or '0'), tonumber(c[3] or '0'), not (c[1] or c[2])
  D[i] = d
end
if told then
  call('XLEN', KEYS[2])
  call('HLEN', KEYS[3])
end

if s[2] and s[2] ~= ARGV[4] then return { 'MISMATCH' } end
if s[2] or low >= seq then return { 'DUP' } end

-- Terminal for good: a late or repeated command can never bring the hold back.
call('HDEL', KEYS[1], 'h:' .. ARGV[2])
call('HSET', KEYS[1], 'd:' .. ARGV[2], ARGV[4])
-- What of a rolling window counts: its newest bucket, and the 60 before.
local function window(b)
  local all, newest, used = call('HGETALL', b), 0, 0
  for pass = 1, 2 do
    for j = 1, #all, 2 do
      local n = tonumber(string.match(all[j], '^u(%d+)$') or '-1')
      if pass == 1 then newest = math.max(newest, n) elseif n >= 0 and n >= newest - 60 then used = used + tonumber(all[j + 1]) end
    end
  end
  return used
end
local reply = { 'OK' }
for i, d in ipairs(D) do
  local add = math.min(d.actual, math.max(0, MAX - d.used))  -- a counter that is full stays full
  if d.member then
    call('ZREM', d.x, d.member)
    d.held = d.held - tonumber(d.hold)
  elseif d.score then
    local less = math.min(add, tonumber(d.rest))
    local rest = str(tonumber(d.rest) - less)
    call('ZADD', d.x, d.score, ARGV[1] .. '.' .. d.from .. '|' .. rest)  -- first, lest the key end and lose its time
    if less > 0 then call('ZREM', d.x, d.cover) end
    call('HSET', KEYS[1], 'h:' .. d.from, rest .. '|' .. rest)
    d.held = d.held - less
  elseif add > 0 then
    call('HINCRBY', d.b, 'late', str(add))
  end
  if add > d.bound then call('HINCRBY', d.b, 'over', str(add - d.bound)) end
  d.used = d.used + add
  -- One write: each is one more in the file and for the replicas.
  local fields = {}
  if d.member or d.score then fields = { 'held', str(d.held) } end
  if add > 0 then fields[#fields + 1], fields[#fields + 2] = d.field, str(d.used) end
  if told then fields[#fields + 1], fields[#fields + 2] = 'n', str(d.n + 1) end
  if #fields > 0 then call('HSET', d.b, unpack(fields)) end
  if d.fresh and d.expiry > 0 and call('PTTL', d.b) == -1 then call('PEXPIREAT', d.b, ARGV[HEAD + i * DRAW]) end
  reply[#reply + 1] = d.field == 'used' and d.used or window(d.b)
  reply[#reply + 1] = d.held
end

if told then
  call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'id', ARGV[1] .. '.' .. ARGV[2], 'r', ARGV[5])
  if ARGV[7] ~= '' then call('XTRIM', KEYS[2], 'MINID', '~', ARGV[7]) end
  call('HINCRBY', KEYS[3], ARGV[8] .. '|n', 1)
  for i, name in ipairs({ '|input', '|output', '|cost' }) do
    if ARGV[8 + i] ~= '0' then redis.pcall('HINCRBY', KEYS[3], ARGV[8] .. name, ARGV[8 + i]) end  -- a sum that is full stays so
  end
  call('PEXPIRE', KEYS[3], ARGV[12])
end

if ack > low then
  local upto, marks = math.min(ack, low + 1000), {}
  for n = low + 1, upto do marks[#marks + 1] = 'd:' .. str(n) end
  call('HDEL', KEYS[1], unpack(marks))
  call('HSET', KEYS[1], 'low', str(upto))
end
if ack > low or not s[1] then call('PEXPIRE', KEYS[1], 14 * 86400000) end
return reply
