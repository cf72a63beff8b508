-- Read counters without changing them; a hold that has expired does not count.
--
-- KEYS  1 general, 2 limits; then for each draw: counters, holds.
-- ARGV  for each draw: budget, bucket_ms (0: not rolling).
-- Returns  now, then for each draw: version|limit as stored (empty: none), used, held, n, over, late, expired
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local clk = tonumber(call('HGET', KEYS[1], 'clk') or '0')
if clk > now then now = clk end
local reply = { now }
for i = 1, #ARGV / 2 do
  local b, x, bucket_ms = KEYS[1 + 2 * i], KEYS[2 + 2 * i], tonumber(ARGV[2 * i])
  local c = call('HMGET', b, 'used', 'held', 'n', 'over', 'late', 'expired')
  local used, held, expired = tonumber(c[1] or '0'), tonumber(c[2] or '0'), tonumber(c[6] or '0')
  if bucket_ms > 0 then
    local oldest, all = math.floor(now / bucket_ms) - 60, call('HGETALL', b)
    used = 0
    for j = 1, #all, 2 do
      local n = string.match(all[j], '^u(%d+)$')
      if n and tonumber(n) >= oldest then used = used + tonumber(all[j + 1]) end
    end
  end
  for _, member in ipairs(call('ZRANGEBYSCORE', x, '-inf', now)) do
    local amount = tonumber(string.match(member, '|(%d+)$'))
    held, expired = held - amount, expired + amount
  end
  for _, v in ipairs({ call('HGET', KEYS[2], ARGV[2 * i - 1]) or '', used, held, tonumber(c[3] or '0'), tonumber(c[4] or '0'), tonumber(c[5] or '0'), expired }) do
    reply[#reply + 1] = v
  end
end
return reply
