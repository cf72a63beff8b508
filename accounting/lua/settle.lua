-- Settle one call, once: give back its hold, add what it really used, write its usage record. Never refuses: what was
-- spent is always recorded, above the limit or in a period that is over. Settling again changes nothing.
--
-- KEYS  1 session, 2 usage stream, 3 totals of the day; then for each draw: its counters, its holds.
-- ARGV  1 sid, 2 seq, 3 ack (every seq up to it is settled and known to be), 4 fingerprint of the amounts,
--       5 usage record (empty: none, a release), 6 records kept, 7 oldest record id kept,
--       8 totals' row, 9 input, 10 output, 11 cost_nanousd, 12 days_ms the totals are kept, 13 number of draws;
--       for each draw 4 values: field, held amount (-1: whatever was held), actual amount, expiry of the counters in ms (0: never).
-- Returns  OK, then for each draw: used, held | DUP | MISMATCH
local call = redis.call
local HEAD, DRAW = 13, 4
local function int(i)
  local s = ARGV[i]
  if not s or #s > 16 or not string.find(s, '^%d+$') then error('BURSAR argument ' .. i .. ' is not an amount') end
  return tonumber(s)
end
local function str(n) return string.format('%.0f', n) end

local seq, ack, draws = int(2), int(3), int(13)
for _, i in ipairs({ 6, 9, 10, 11, 12 }) do int(i) end
if #KEYS ~= 3 + 2 * draws or #ARGV ~= HEAD + DRAW * draws then error('BURSAR wrong number of keys') end
for i = 1, draws do
  local a = HEAD + (i - 1) * DRAW
  if ARGV[a + 2] ~= '-1' then int(a + 2) end
  int(a + 3) int(a + 4)
end

local s = call('HMGET', KEYS[1], 'low', 'd:' .. ARGV[2], 'h:' .. ARGV[2])
local low = tonumber(s[1] or '0')
if s[2] and s[2] ~= ARGV[4] then return { 'MISMATCH' } end
if s[2] or low >= seq then return { 'DUP' } end

local amounts = {}  -- granted, then what each draw held
for n in string.gmatch(s[3] or '', '%d+') do amounts[#amounts + 1] = n end
local reply = { 'OK' }
for i = 1, draws do
  local a = HEAD + (i - 1) * DRAW
  local b, x, field, actual, expiry = KEYS[2 + 2 * i], KEYS[3 + 2 * i], ARGV[a + 1], int(a + 3), int(a + 4)
  local hold = ARGV[a + 2] == '-1' and (amounts[i + 1] or '0') or ARGV[a + 2]
  local held
  if call('ZREM', x, ARGV[1] .. '.' .. ARGV[2] .. '|' .. hold) == 1 then
    held = call('HINCRBY', b, 'held', '-' .. hold)
  else
    held = tonumber(call('HGET', b, 'held') or '0')
    if actual > 0 then call('HINCRBY', b, 'late', ARGV[a + 3]) end
  end
  local used = tonumber(call('HGET', b, field) or '0')
  if actual > 0 then used = call('HINCRBY', b, field, ARGV[a + 3]) end
  if actual > tonumber(hold) then call('HINCRBY', b, 'over', str(actual - tonumber(hold))) end
  if ARGV[5] ~= '' then call('HINCRBY', b, 'n', 1) end
  if expiry > 0 and used == actual then call('PEXPIREAT', b, expiry) end
  reply[#reply + 1] = used
  reply[#reply + 1] = held
end

if ARGV[5] ~= '' then
  call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'id', ARGV[1] .. '.' .. ARGV[2], 'r', ARGV[5])
  if ARGV[7] ~= '' then call('XTRIM', KEYS[2], 'MINID', '~', ARGV[7]) end
  call('HINCRBY', KEYS[3], ARGV[8] .. '|n', 1)
  for i, name in ipairs({ '|input', '|output', '|cost' }) do
    if ARGV[8 + i] ~= '0' then call('HINCRBY', KEYS[3], ARGV[8] .. name, ARGV[8 + i]) end
  end
  call('PEXPIRE', KEYS[3], ARGV[12])
end

-- Terminal for good: a late or repeated command can never bring the hold back.
call('HSET', KEYS[1], 'd:' .. ARGV[2], ARGV[4])
call('HDEL', KEYS[1], 'h:' .. ARGV[2])
if ack > low then
  local upto = math.min(ack, low + 1000)
  local marks = {}
  for n = low + 1, upto do marks[#marks + 1] = 'd:' .. str(n) end
  call('HDEL', KEYS[1], unpack(marks))
  call('HSET', KEYS[1], 'low', str(upto))
end
call('PEXPIRE', KEYS[1], 14 * 86400000)
return reply
