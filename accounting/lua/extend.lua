-- Heartbeat: give open holds another ttl_ms, and say which are no longer there. While the store is learning after it lost
-- writes, a hold that is missing and not settled is adopted: it was admitted once.
--
-- KEYS  1 general, 2 session, 3 sessions; then for each hold and each of its draws: counters, holds.
-- ARGV  1 run id of the server, 2 sid, 3 ttl_ms, 4 adopt (1 or 0), 5 number of holds;
--       for each hold: seq, granted, number of draws, then for each draw: amount, expiry of the counters in ms (0: never).
-- Returns  OK now, then the seq of each hold that is lost | GEN now
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local g = call('HMGET', KEYS[1], 'gen', 'learn', 'clk')
local clk = tonumber(g[3] or '0')
if clk > now then now = clk end
if g[1] ~= ARGV[1] then return { 'GEN', now } end
local ttl, holds = tonumber(ARGV[3]), tonumber(ARGV[5])
local adopt = ARGV[4] == '1' and g[2] and tonumber(g[2]) > now
call('ZADD', KEYS[3], now, ARGV[2])
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - 14 * 86400000)
if now > clk + 50 then call('HSET', KEYS[1], 'clk', string.format('%.0f', now)) end
local low = tonumber(call('HGET', KEYS[2], 'low') or '0')

local reply, a, k = { 'OK', now }, 5, 3
for _ = 1, holds do
  local seq, mine, draws, there, adopted = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3]), true, false
  a = a + 3
  local terminal = tonumber(seq) <= low or call('HEXISTS', KEYS[2], 'd:' .. seq) == 1
  for _ = 1, draws do
    local b, x, member = KEYS[k + 1], KEYS[k + 2], ARGV[2] .. '.' .. seq .. '|' .. ARGV[a + 1]
    local score = call('ZSCORE', x, member)
    if score and tonumber(score) > now then
      call('ZADD', x, 'XX', now + ttl, member)
    elseif adopt and not terminal then
      if not score then call('HINCRBY', b, 'held', ARGV[a + 1]) end
      call('ZADD', x, now + ttl, member)
      if ARGV[a + 2] ~= '0' then call('PEXPIREAT', b, ARGV[a + 2]) call('PEXPIREAT', x, ARGV[a + 2]) end
      adopted = true
    else
      there = false
    end
    mine = mine .. '|' .. ARGV[a + 1]
    a, k = a + 2, k + 2
  end
  if adopted then call('HSET', KEYS[2], 'h:' .. seq, mine) end
  if not there then reply[#reply + 1] = seq end
end
call('PEXPIRE', KEYS[2], 14 * 86400000)
return reply
