-- Let an open hold grow to a larger output, on all of its budgets or on none; its lease begins anew. The output is the whole
-- that is wanted and not what is added, so asking twice grows once. A refused hold stays as large as it is.
--
-- KEYS  1 general, 2 session, 3 limits; then for each draw: counters, holds.
-- ARGV  1 run id of the server, 2 sid, 3 seq, 4 ttl_ms, 5 wanted output, 6 least output, 7 number of draws;
--       for each draw 7 values: budget, version, limit, fixed, per output, binds (1 hard, 0 soft or shadow), bucket_ms (0: not rolling).
-- Returns  OK now granted, then the amount of each draw | DENY now draw limit used held need | LOST now | GEN now | LEARN now until_ms
local DRAW, HEAD, MAX = 7, 7, 9007199254740991
local call = redis.call
local function int(i)
  local s = ARGV[i]
  local n = s and #s <= 16 and string.find(s, '^%d+$') and tonumber(s)
  if not n or n > MAX then error('BURSAR argument ' .. i .. ' is not an amount') end
  return n
end
local function str(n) return string.format('%.0f', n) end

local seq, ttl, wanted, least, draws = int(3), int(4), int(5), int(6), int(7)
if #KEYS ~= 3 + 2 * draws or #ARGV ~= HEAD + DRAW * draws then error('BURSAR wrong number of keys') end
local D = {}
for i = 1, draws do
  local a = HEAD + (i - 1) * DRAW
  D[i] = { b = KEYS[2 + 2 * i], x = KEYS[3 + 2 * i], id = ARGV[a + 1], ver = int(a + 2), limit = int(a + 3), fixed = int(a + 4),
    per = int(a + 5), binds = int(a + 6) == 1, bucket = int(a + 7) }
end

local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local g = call('HMGET', KEYS[1], 'gen', 'learn', 'clk')
local clk, buried = tonumber(g[3] or '0'), false
if clk > now then now = clk end
if g[1] ~= ARGV[1] then return { 'GEN', now } end
local s = call('HMGET', KEYS[2], 'low', 'd:' .. ARGV[3], 'h:' .. ARGV[3])
local mine = {}
for n in string.gmatch(s[3] or '', '%d+') do mine[#mine + 1] = n end
if s[2] or tonumber(s[1] or '0') >= seq or #mine ~= draws + 1 then return { 'LOST', now } end
local member = ARGV[2] .. '.' .. ARGV[3] .. '|'
for i, d in ipairs(D) do
  d.was = mine[i + 1]
  local score = call('ZSCORE', d.x, member .. d.was)
  if not score or tonumber(score) <= now then return { 'LOST', now } end
end
if tonumber(g[2] or '0') > now and wanted > tonumber(mine[1]) then return { 'LEARN', now, tonumber(g[2]) } end

local granted, before = wanted, tonumber(mine[1])
for i, d in ipairs(D) do
  local known = call('HGET', KEYS[3], d.id) or ''
  local ver, limit = string.match(known, '^(%d+)|(%d+)$')
  if ver and tonumber(ver) > d.ver then d.limit = tonumber(limit) end
  local c = call('HMGET', d.b, 'used', 'held')
  d.used, d.held = tonumber(c[1] or '0'), tonumber(c[2] or '0')
  if d.bucket > 0 then
    local oldest, all = math.floor(now / d.bucket) - 60, call('HGETALL', d.b)
    d.used = 0
    for j = 1, #all, 2 do
      local n = string.match(all[j], '^u(%d+)$')
      if n and tonumber(n) >= oldest then d.used = d.used + tonumber(all[j + 1]) end
    end
  end
  for _, dead in ipairs(call('ZRANGEBYSCORE', d.x, '-inf', now)) do
    d.held, buried = d.held - tonumber(string.match(dead, '|(%d+)$')), true
  end
  d.others = d.held - tonumber(d.was)
  local free = d.limit - d.used - d.others
  if d.binds and least > before and d.fixed + d.per * least > free then
    return { 'DENY', now, i, d.limit, d.used, d.held, d.fixed + d.per * least }
  end
  if d.binds and d.per > 0 then
    granted = math.min(granted, math.floor((free - d.fixed) / d.per))
  end
end
granted = math.max(granted, before)

-- The room of the dead is taken: no clock that is set back may bring them back to life.
if now > clk + 50 or (buried and now > clk) then call('HSET', KEYS[1], 'clk', str(now)) end
local reply, hold = { 'OK', now, granted }, str(granted)
for _, d in ipairs(D) do
  local amount = math.max(d.fixed + d.per * granted, tonumber(d.was))
  if not d.binds then amount = math.min(amount, math.max(tonumber(d.was), MAX - d.used - d.others)) end
  if granted == before then amount = tonumber(d.was) end
  call('ZADD', d.x, now + ttl, member .. str(amount))  -- first, lest the key end and lose its time
  if str(amount) ~= d.was then call('ZREM', d.x, member .. d.was) end
  if amount > tonumber(d.was) then call('HINCRBY', d.b, 'held', str(amount - tonumber(d.was))) end
  hold = hold .. '|' .. str(amount)
  reply[#reply + 1] = amount
end
call('HSET', KEYS[2], 'h:' .. ARGV[3], hold)
return reply
