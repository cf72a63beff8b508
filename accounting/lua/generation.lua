-- A server that a ledger has not met: note it, and let it learn from the living sidecars before it admits on hard budgets.
-- Nothing is to be learned on a store without live sessions, nor from our own embedded one (learn_ms 0). A caller that
-- remembers an epoch has been at work here, so it is such a session itself; and if the epoch is another, all was lost.
--
-- KEYS  1 general, 2 sessions.
-- ARGV  1 run id of the server, 2 learn_ms, 3 a session counts as live if it was heard of this many ms ago, 4 a random epoch,
--       5 the epoch that the caller remembers (empty: none).
-- Returns  now, until_ms (0: not learning), epoch
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local g = call('HMGET', KEYS[1], 'gen', 'learn', 'epoch', 'clk')
if g[4] and tonumber(g[4]) > now then now = tonumber(g[4]) end
local epoch, until_ms = g[3] or ARGV[4], tonumber(g[2] or '0')
local changed, lost = g[1] ~= ARGV[1], ARGV[5] ~= '' and ARGV[5] ~= epoch
if changed or lost then
  local live = ARGV[5] ~= '' or g[1] == '' or call('ZCOUNT', KEYS[2], now - tonumber(ARGV[3]), '+inf') > 0
  if changed then until_ms = 0 end
  if live and tonumber(ARGV[2]) > 0 then until_ms = math.max(until_ms, now + tonumber(ARGV[2])) end
  call('HSET', KEYS[1], 'gen', ARGV[1], 'learn', string.format('%.0f', until_ms), 'epoch', epoch)
end
call('HSET', KEYS[1], 'clk', string.format('%.0f', now))
if until_ms <= now then until_ms = 0 end
return { now, until_ms, epoch }
