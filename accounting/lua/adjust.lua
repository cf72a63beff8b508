-- Correct what a budget counts as used, for a reason that is kept. Never below 0.
--
-- KEYS  1 counters, 2 audit stream.
-- ARGV  1 field, 2 change (may be negative), 3 audit entry, 4 expiry of the counters in ms (0: never).
-- Returns  used before, used after
if not string.find(ARGV[2], '^%-?%d+$') or #ARGV[2] > 17 then return redis.error_reply('BURSAR not an amount') end
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local change = ARGV[2]
if before + tonumber(change) < 0 then change = '-' .. string.format('%.0f', before) end
local after = redis.call('HINCRBY', KEYS[1], ARGV[1], change)
if ARGV[4] ~= '0' then redis.call('PEXPIREAT', KEYS[1], ARGV[4]) end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'e', ARGV[3])
return { before, after }
