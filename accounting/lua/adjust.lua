-- Correct what a budget counts as used, for a reason that is kept. Never below 0; asked again with the same id, it does nothing.
-- In a rolling window what is added counts as used now, and what is taken away is taken from the latest buckets first.
--
-- KEYS  1 counters, 2 audit stream, 3 marker of this adjustment, 4 general.
-- ARGV  1 bucket_ms (0: not rolling), 2 change (may be negative), 3 audit entry, 4 expiry of the counters in ms (0: never).
-- Returns  used before, used after
local call = redis.call
local function refuse() return redis.error_reply('BURSAR not an amount') end
if not string.find(ARGV[2], '^%-?%d+$') or #ARGV[2] > 17 or not string.find(ARGV[1], '^%d+$') then return refuse() end
local function str(n) return string.format('%.0f', n) end
local bucket_ms, change = tonumber(ARGV[1]), tonumber(ARGV[2])
local done = call('GET', KEYS[3])
if done then
  local before, after = string.match(done, '^(%d+)|(%d+)$')
  return { tonumber(before), tonumber(after) }
end

call('XLEN', KEYS[2])  -- of the wrong type: fail before the first write
local before, after
if bucket_ms == 0 then
  before = tonumber(call('HGET', KEYS[1], 'used') or '0')
  after = math.min(9007199254740991, math.max(0, before + change))
  call('HSET', KEYS[1], 'used', str(after))
  if ARGV[4] ~= '0' then call('PEXPIREAT', KEYS[1], ARGV[4]) end
else
  local t = call('TIME')
  local now = math.max(t[1] * 1000 + math.floor(t[2] / 1000), tonumber(call('HGET', KEYS[4], 'clk') or '0'))
  local bucket, sum, by = math.floor(now / bucket_ms), 0, {}
  for n = bucket, bucket - 60, -1 do
    by[n] = tonumber(call('HGET', KEYS[1], 'u' .. str(n)) or '0')
    sum = sum + by[n]
  end
  before = sum
  if change > 0 then call('HINCRBY', KEYS[1], 'u' .. str(bucket), str(change)) end
  local left = change > 0 and 0 or math.min(-change, before)
  after = change > 0 and before + change or before - left
  for n = bucket, bucket - 60, -1 do
    local part = math.min(left, by[n])
    if part > 0 then call('HINCRBY', KEYS[1], 'u' .. str(n), '-' .. str(part)) end
    left = left - part
  end
  call('PEXPIREAT', KEYS[1], str(now + bucket_ms * 120 + 45 * 86400000))  -- as in reserve.lua
end
call('SET', KEYS[3], str(before) .. '|' .. str(after), 'PX', 86400000)
call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'e', ARGV[3], 'applied', str(after - before))
return { before, after }
