-- A server that a ledger has not met: note it, and let it learn from the living sidecars before it admits on hard budgets.
-- Nothing is to be learned on a store without live sessions, nor from our own embedded one (learn_ms 0). A caller that
-- remembers an epoch has been at work here, so it is such a session itself; and if the epoch is another, all was lost.
-- The lesson ends as soon as every session that may hold something has said that it told all, but not before least_ms.
-- Those are the sessions that were heard of lately, as far as the store knows. Where it may have lost some of them, too (a
-- caller is not among them, or knows of more arrivals than it does), the lesson takes its whole time.
--
-- KEYS  1 general, 2 sessions, 3 sessions that the lesson waits for.
-- ARGV  1 run id of the server, 2 learn_ms, 3 a session counts as live if it was heard of this many ms ago, 4 a random epoch,
--       5 the epoch that the caller remembers (empty: none), 6 its sid, 7 least_ms, 8 ttl_ms of a hold,
--       9 how often a session arrived, as far as it remembers, 10 whether it told all (1 or 0).
-- Returns  now, until_ms (0: not learning), epoch, how often a session arrived, 1 if what was told does not count
local call = redis.call
local function str(n) return string.format('%.0f', n) end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local g = call('HMGET', KEYS[1], 'gen', 'learn', 'epoch', 'clk', 'born', 'soon')
local clk, born = tonumber(g[4] or '0'), tonumber(g[5] or '0')
if clk > now then now = clk end
local epoch, until_ms, soon = g[3] or ARGV[4], tonumber(g[2] or '0'), tonumber(g[6] or '0')
local changed, lost = g[1] ~= ARGV[1], ARGV[5] ~= '' and ARGV[5] ~= epoch
local listed = call('ZSCORE', KEYS[2], ARGV[6])
-- Whoever holds something was heard of since then: its lease lasts ttl_ms, and a third of that it may reserve unheard.
local lately = clk - tonumber(ARGV[8]) * 4 / 3
listed = listed and tonumber(listed) >= lately
local new, again = changed or lost, 0
if new then
  local live = ARGV[5] ~= '' or g[1] == '' or call('ZCOUNT', KEYS[2], now - tonumber(ARGV[3]), '+inf') > 0
  if changed then until_ms = 0 end
  if live and tonumber(ARGV[2]) > 0 then until_ms = math.max(until_ms, now + tonumber(ARGV[2])) end
  soon = until_ms
  call('DEL', KEYS[3])
  -- After a leap of the clock nobody can say who was heard of lately.
  if until_ms > 0 and g[1] and g[1] ~= '' and g[3] and not lost then
    if call('ZRANGESTORE', KEYS[3], KEYS[2], str(lately), '+inf', 'BYSCORE') > 0 then
      call('PEXPIRE', KEYS[3], 10 * tonumber(ARGV[2]))
      soon = math.min(until_ms, now + tonumber(ARGV[7]))
    end
  end
end
if ARGV[5] ~= '' and (not listed or tonumber(ARGV[9]) > born) then soon = until_ms end
born = math.max(born, tonumber(ARGV[9]))
if not listed then
  call('ZADD', KEYS[2], now, ARGV[6])
  born = born + 1
end
if ARGV[10] == '1' then
  if new then
    again = 1
  else
    call('ZREM', KEYS[3], ARGV[6])
    if until_ms > now and call('ZCARD', KEYS[3]) == 0 then until_ms = math.max(now, soon) end
  end
end
call('HSET', KEYS[1], 'gen', ARGV[1], 'learn', str(until_ms), 'epoch', epoch, 'clk', str(now), 'born', str(born), 'soon', str(soon))
if until_ms <= now then until_ms = 0 end
return { now, until_ms, epoch, born, again }
