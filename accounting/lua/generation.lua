-- A server that this ledger has not met: note it, and let it learn from the living sidecars before it admits on hard budgets.
-- Nothing is to be learned on a store without live sessions, nor from our own embedded one (learn_ms 0).
--
-- KEYS  1 general, 2 sessions.
-- ARGV  1 run id of the server, 2 learn_ms, 3 a session counts as live if it was heard of this many ms ago, 4 a random epoch.
-- Returns  now, until_ms (0: not learning), epoch
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local g = redis.call('HMGET', KEYS[1], 'gen', 'learn', 'epoch')
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[4])
local until_ms = tonumber(g[2] or '0')
if g[1] ~= ARGV[1] then
  local live = redis.call('ZCOUNT', KEYS[2], now - tonumber(ARGV[3]), '+inf')
  until_ms = 0
  if live > 0 and tonumber(ARGV[2]) > 0 then until_ms = now + tonumber(ARGV[2]) end
  redis.call('HSET', KEYS[1], 'gen', ARGV[1], 'learn', string.format('%.0f', until_ms))
end
if until_ms <= now then until_ms = 0 end
return { now, until_ms, redis.call('HGET', KEYS[1], 'epoch') }
