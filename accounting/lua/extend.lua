-- Heartbeat: give open holds another ttl_ms, and say which are no longer there. While the store is learning after it lost
-- writes, a hold that is missing and not settled is adopted: it was admitted once. So is what one had grown by, if its owner
-- knows of more output than the store; an owner who says 0 leaves that to the store.
--
-- KEYS  1 general, 2 session, 3 sessions; then for each hold and each of its draws: counters, holds.
-- ARGV  1 run id of the server, 2 sid, 3 ttl_ms, 4 number of holds;
--       for each hold: seq, granted, number of draws, then for each draw: amount, expiry of the counters in ms (0: never).
-- Returns  OK now until_ms (0: not learning), how often a session arrived, then the seq of each hold that is lost | GEN now
local call, JUMP_MS = redis.call, 600000
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local g = call('HMGET', KEYS[1], 'gen', 'learn', 'clk', 'born')
local clk, ttl, holds = tonumber(g[3] or '0'), tonumber(ARGV[3]), tonumber(ARGV[4])
if clk > now then now = clk end
if g[1] ~= ARGV[1] then return { 'GEN', now } end
if clk > 0 and now > clk + JUMP_MS and call('ZCOUNT', KEYS[3], clk - ttl, '+inf') > 0 then  -- see reserve.lua
  call('HSET', KEYS[1], 'gen', '', 'clk', string.format('%.0f', now))
  return { 'GEN', now }
end
local until_ms = tonumber(g[2] or '0')
if until_ms <= now then until_ms = 0 end
local low = tonumber(call('HGET', KEYS[2], 'low') or '0')
local born, heard = tonumber(g[4] or '0'), call('ZSCORE', KEYS[3], ARGV[2])
if not heard or tonumber(heard) < now - ttl * 4 / 3 then born = call('HINCRBY', KEYS[1], 'born', 1) end  -- see generation.lua
call('ZADD', KEYS[3], now, ARGV[2])
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - 14 * 86400000)
if now > clk + 50 then call('HSET', KEYS[1], 'clk', string.format('%.0f', now)) end

local reply, a, k = { 'OK', now, until_ms, born }, 4, 3
for _ = 1, holds do
  local seq, mine, draws, there, adopted = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3]), true, false
  a = a + 3
  local mark = call('HMGET', KEYS[2], 'd:' .. seq, 'h:' .. seq)
  local known = {}  -- granted, amount, amount …: what is held if it has grown since
  for n in string.gmatch(mark[2] or '', '%d+') do known[#known + 1] = n end
  if known[1] and tonumber(known[1]) > tonumber(mine) then mine = known[1] end
  local adopt = until_ms > 0 and tonumber(seq) > low and not mark[1]
  local grew = adopt and known[1] and tonumber(mine) > tonumber(known[1])
  for i = 1, draws do
    local b, x, told, expiry = KEYS[k + 1], KEYS[k + 2], ARGV[a + 1], ARGV[a + 2]
    local had = known[i + 1] or told
    local amount = grew and tonumber(told) > tonumber(had) and told or had
    local member = ARGV[2] .. '.' .. seq .. '|'
    local score = call('ZSCORE', x, member .. had)
    if score and tonumber(score) > now and amount == had then
      call('ZADD', x, 'XX', now + ttl, member .. amount)
    elseif adopt then
      call('ZADD', x, now + ttl, member .. amount)
      if score and amount ~= had then call('ZREM', x, member .. had) end
      local more = tonumber(amount) - (score and tonumber(had) or 0)
      if more > 0 then call('HINCRBY', b, 'held', string.format('%.0f', more)) end
      if expiry ~= '0' then call('PEXPIREAT', b, expiry) call('PEXPIREAT', x, expiry) end
      adopted = true
    else
      there = false
    end
    mine = mine .. '|' .. amount
    a, k = a + 2, k + 2
  end
  if adopted then call('HSET', KEYS[2], 'h:' .. seq, mine) end
  if not there then reply[#reply + 1] = seq end
end
call('PEXPIRE', KEYS[2], 14 * 86400000)
return reply
