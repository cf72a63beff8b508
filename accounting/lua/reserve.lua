-- Reserve a call's worst case on all of its budgets and limits, or on none of them.
-- Every argument is checked before the first write: a script that fails half-way keeps what it wrote.
-- Amounts are integers below 2^53, written as they came or by %.0f (`..` and cjson lose digits). Times are in ms.
--
-- KEYS  1 general, 2 session, 3 limits, 4 sessions; then for each draw: its counters, its holds; then one for each rate.
-- ARGV  1 run id of the server, 2 configuration version, 3 sid, 4 seq, 5 ttl_ms,
--       6 wanted output, 7 least output, 8 share in thousandths of what is free (0: the caller named a limit),
--       9 number of draws, 10 number of rates;
--       for each draw 10 values: budget, version, limit, fixed, per output, binds (1 hard, 0 soft or shadow),
--         full (1: all that is wanted or nothing), start_ms, end_ms (0: never), bucket_ms (0: not rolling);
--       for each rate 4 values: limit per window, window_ms, fixed, per output.
-- Returns  OK  now granted, then for each draw: field, limit, used, held, amount; then for each rate: limit, remaining, reset_ms
--          DENY now spent|held draw limit used held need     RATE now rate limit wait_ms
--          CONFIG now version | GEN now | LEARN now until_ms | CLOCK now draw | TERMINAL now
-- Asked again for a seq that holds already, it changes nothing and returns what that call was granted.
local DRAW, RATE, HEAD, KEPT_MS = 10, 4, 10, 45 * 86400000
local call = redis.call

local function int(i)
  local s = ARGV[i]
  if not s or #s > 16 or not string.find(s, '^%d+$') then error('BURSAR argument ' .. i .. ' is not an amount') end
  return tonumber(s)
end
local function str(n) return string.format('%.0f', n) end

local seq, ttl, wanted, least, share, draws, rates = ARGV[4], int(5), int(6), int(7), int(8), int(9), int(10)
int(4)
if #KEYS ~= 4 + 2 * draws + rates or #ARGV ~= HEAD + DRAW * draws + RATE * rates then error('BURSAR wrong number of keys') end
local D = {}
for i = 1, draws do
  local a = HEAD + (i - 1) * DRAW
  D[i] = { b = KEYS[3 + 2 * i], x = KEYS[4 + 2 * i], id = ARGV[a + 1], ver = int(a + 2), limit = int(a + 3), fixed = int(a + 4),
    per = int(a + 5), binds = int(a + 6) == 1, full = int(a + 7) == 1, from = int(a + 8), to = int(a + 9), bucket = int(a + 10) }
end
local R = {}
for i = 1, rates do
  local a = HEAD + DRAW * draws + (i - 1) * RATE
  R[i] = { key = KEYS[4 + 2 * draws + i], limit = int(a + 1), window = int(a + 2), fixed = int(a + 3), per = int(a + 4) }
end

local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local g = call('HMGET', KEYS[1], 'gen', 'learn', 'clk', 'cfg')
local clk = tonumber(g[3] or '0')
if clk > now then now = clk end
if g[1] ~= ARGV[1] then return { 'GEN', now } end
if g[2] and tonumber(g[2]) > now then return { 'LEARN', now, tonumber(g[2]) } end
if (g[4] or '0') ~= ARGV[2] then return { 'CONFIG', now, g[4] or '0' } end
local s = call('HMGET', KEYS[2], 'low', 'd:' .. seq, 'h:' .. seq)
if s[2] or (s[1] and tonumber(s[1]) >= tonumber(seq)) then return { 'TERMINAL', now } end
local mine = s[3]  -- granted|amount|amount … if this seq holds already

-- Release holds whose owner let them expire.
local function reap(d)
  repeat
    local dead = call('ZRANGEBYSCORE', d.x, '-inf', now, 'LIMIT', 0, 64)
    if #dead > 0 then
      local sum = 0
      for _, member in ipairs(dead) do sum = sum + tonumber(string.match(member, '|(%d+)$')) end
      call('ZREM', d.x, unpack(dead))
      call('HINCRBY', d.b, 'held', '-' .. str(sum))
      call('HINCRBY', d.b, 'expired', str(sum))
    end
  until #dead < 64
end

-- What of a rolling window counts now: its oldest bucket whole, so that no window of that length is ever over.
local function rolling(d)
  local bucket = math.floor(now / d.bucket)
  d.field = 'u' .. str(bucket)
  local all, used, old = call('HGETALL', d.b), 0, {}
  for i = 1, #all, 2 do
    local n = string.match(all[i], '^u(%d+)$')
    if n and tonumber(n) >= bucket - 60 then used = used + tonumber(all[i + 1]) elseif n then old[#old + 1] = all[i] end
  end
  if #old > 0 then call('HDEL', d.b, unpack(old)) end
  return used
end

for i, d in ipairs(D) do
  if now < d.from or (d.to > 0 and now >= d.to) then return { 'CLOCK', now, i } end
end
local known = {}
if draws > 0 then
  local ids = {}
  for i, d in ipairs(D) do ids[i] = d.id end
  known = call('HMGET', KEYS[3], unpack(ids))
end
for i, d in ipairs(D) do
  local ver, limit = string.match(known[i] or '', '^(%d+)|(%d+)$')
  if ver and tonumber(ver) > d.ver then
    d.limit = tonumber(limit)
  elseif not ver or tonumber(ver) < d.ver or tonumber(limit) ~= d.limit then
    call('HSET', KEYS[3], d.id, str(d.ver) .. '|' .. str(d.limit))
  end
  reap(d)
  if d.bucket > 0 then
    d.used = rolling(d)
    d.held = tonumber(call('HGET', d.b, 'held') or '0')
  else
    d.field = 'used'
    local c = call('HMGET', d.b, 'used', 'held')
    d.fresh, d.used, d.held = not c[1] and not c[2], tonumber(c[1] or '0'), tonumber(c[2] or '0')
  end
end

if mine then
  local amounts = {}
  for n in string.gmatch(mine, '%d+') do amounts[#amounts + 1] = tonumber(n) end
  local reply = { 'OK', now, amounts[1] }
  for i, d in ipairs(D) do
    for _, v in ipairs({ d.field, d.limit, d.used, d.held, amounts[i + 1] or 0 }) do reply[#reply + 1] = v end
  end
  for _, r in ipairs(R) do
    for _, v in ipairs({ r.limit, 0, 0 }) do reply[#reply + 1] = v end
  end
  return reply
end

-- Decide: what each budget can grant, now and if nothing were held.
local granted, spent, held = wanted, nil, nil
for i, d in ipairs(D) do
  local need = d.fixed + d.per * (d.full and wanted or least)
  if d.binds then
    local free = d.limit - d.used - d.held
    if d.used + need > d.limit then spent = spent or i end
    if need > free then held = held or i end
    if d.per > 0 and need <= free then
      local fit = math.floor((free - d.fixed) / d.per)
      if fit * d.per > free - d.fixed then fit = fit - 1 end
      if share > 0 and not d.full then fit = math.max(least, math.floor(fit * share / 1000)) end
      granted = math.min(granted, fit)
    end
  end
end
local no = spent or held
if no then
  local d = D[no]
  return { 'DENY', now, spent and 'spent' or 'held', no, d.limit, d.used, d.held, d.fixed + d.per * (d.full and wanted or least) }
end
for i, r in ipairs(R) do
  r.each = r.window / r.limit
  r.tat = math.max(now, tonumber(call('GET', r.key) or '0'))
  r.next = r.tat + (r.fixed + r.per * granted) * r.each
  if r.next - now > r.window + 0.001 then  -- the thousandth is for sums of fractions
    return { 'RATE', now, i, r.limit, math.ceil(math.min(r.next - now - r.window, r.window)) }
  end
end

-- Do.
local reply, hold = { 'OK', now, granted }, str(granted)
for i, d in ipairs(D) do
  local amount = d.fixed + d.per * granted
  call('ZADD', d.x, now + ttl, ARGV[3] .. '.' .. seq .. '|' .. str(amount))
  call('HINCRBY', d.b, 'held', str(amount))
  hold = hold .. '|' .. str(amount)
  if d.bucket > 0 then
    call('PEXPIRE', d.b, d.bucket * 120)
    call('PEXPIRE', d.x, d.bucket * 120)
  elseif d.to > 0 then
    if d.fresh then call('PEXPIREAT', d.b, d.to + KEPT_MS) end
    call('PEXPIREAT', d.x, d.to + KEPT_MS)
  end
  for _, v in ipairs({ d.field, d.limit, d.used, d.held + amount, amount }) do reply[#reply + 1] = v end
end
for _, r in ipairs(R) do
  call('SET', r.key, string.format('%.3f', r.next), 'PX', math.ceil(r.next - now) + 1000)
  for _, v in ipairs({ r.limit, math.max(0, math.floor((r.window - (r.next - now)) / r.each)), math.ceil(r.next - now) }) do reply[#reply + 1] = v end
end
call('HSET', KEYS[2], 'h:' .. seq, hold)
call('PEXPIRE', KEYS[2], 14 * 86400000)
if not s[1] then call('HSETNX', KEYS[2], 'low', '0') call('ZADD', KEYS[4], now, ARGV[3]) end
if now > clk + 50 then call('HSET', KEYS[1], 'clk', str(now)) end
return reply
