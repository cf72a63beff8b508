-- Claim a mark, so that of all sidecars one tells: a claim that is not confirmed in time may be taken over.
--
-- KEYS  1 mark.
-- ARGV  1 token of the claimant, 2 lease_ms, 3 ttl_ms, 4 claim (0) or confirm (1).
-- Returns  1 claimed for the first time, 2 taken over (or ours already), 0 somebody else's or done
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = call('GET', KEYS[1])
if ARGV[4] == '1' then
  call('SET', KEYS[1], 'done', 'PX', ARGV[3])
  return 1
end
if held == 'done' then return 0 end
if held then
  local owner, till = string.match(held, '^(.*)|(%d+)$')
  if owner ~= ARGV[1] and tonumber(till) > now then return 0 end
end
call('SET', KEYS[1], ARGV[1] .. '|' .. string.format('%.0f', now + tonumber(ARGV[2])), 'PX', ARGV[3])
return held and 2 or 1
