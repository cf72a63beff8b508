-- Reserve a call's worst case on all of its budgets and limits, or on none of them.
-- Everything is checked and read before the first write: a script that fails half-way keeps what it wrote.
-- Amounts are integers up to 2^53-1, written as they came or by %.0f (`..` and cjson lose digits). Times are in ms.
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
local DRAW, RATE, HEAD, KEPT_MS, MAX, JUMP_MS = 10, 4, 10, 45 * 86400000, 9007199254740991, 600000
local call, find, format, tonumber = redis.call, string.find, string.format, tonumber  -- a global is looked up at each use

local function int(i)
  local s = ARGV[i]
  local n = s and #s <= 16 and find(s, '^%d+$') and tonumber(s)
  if not n or n > MAX then error('BURSAR argument ' .. i .. ' is not an amount') end
  return n
end
local function str(n) return format('%.0f', n) end

local seq, ttl, wanted, least, share, draws, rates = ARGV[4], int(5), int(6), int(7), int(8), int(9), int(10)
int(4)
if #KEYS ~= 4 + 2 * draws + rates or #ARGV ~= HEAD + DRAW * draws + RATE * rates then error('BURSAR wrong number of keys') end
local D = {}
for i = 1, draws do
  local a = HEAD + (i - 1) * DRAW
  D[i] = { b = KEYS[3 + 2 * i], x = KEYS[4 + 2 * i], id = ARGV[a + 1], ver = int(a + 2), limit = int(a + 3), fixed = int(a + 4),
    per = int(a + 5), binds = int(a + 6) == 1, full = int(a + 7) == 1, from = int(a + 8), to = int(a + 9), bucket = int(a + 10) }
  D[i].need = D[i].fixed + D[i].per * (D[i].full and wanted or least)
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
local s = call('HMGET', KEYS[2], 'low', 'd:' .. seq, 'h:' .. seq)
local session = call('ZSCORE', KEYS[4], ARGV[3])
if clk > 0 and now > clk + JUMP_MS and call('ZCOUNT', KEYS[4], clk - ttl, '+inf') > 0 then
  -- The clock jumped (or the server slept) under living sessions: all that they hold seems to have expired. Learn it anew.
  call('HSET', KEYS[1], 'gen', '', 'clk', str(now))
  return { 'GEN', now }
end
if s[2] or (s[1] and tonumber(s[1]) >= tonumber(seq)) then return { 'TERMINAL', now } end
local mine = {}  -- granted, amount, amount … if this seq holds already
for n in string.gmatch(s[3] or '', '%d+') do mine[#mine + 1] = n end
if mine[1] then
  for i, d in ipairs(D) do
    local score = call('ZSCORE', d.x, ARGV[3] .. '.' .. seq .. '|' .. (mine[i + 1] or ''))
    if not score or tonumber(score) <= now then return { 'TERMINAL', now } end
  end
else
  if g[2] and tonumber(g[2]) > now then
    for _, d in ipairs(D) do if d.binds then return { 'LEARN', now, tonumber(g[2]) } end end
  end
  if (g[4] or '0') ~= ARGV[2] then return { 'CONFIG', now, g[4] or '0' } end
  for i, d in ipairs(D) do
    if now < d.from or (d.to > 0 and now >= d.to) then return { 'CLOCK', now, i } end
  end
end

-- Read all.
local ids = {}
for i, d in ipairs(D) do ids[i] = d.id end
local known = draws > 0 and call('HMGET', KEYS[3], unpack(ids)) or {}
for i, d in ipairs(D) do
  local ver, limit = string.match(known[i] or '', '^(%d+)|(%d+)$')
  if ver and tonumber(ver) > d.ver then
    d.limit = tonumber(limit)
  else
    d.news = not ver or tonumber(ver) < d.ver or tonumber(limit) ~= d.limit
  end
  if d.bucket > 0 then
    -- Of a rolling window its oldest bucket counts whole, so that no window of that length is ever over.
    local bucket = math.floor(now / d.bucket)
    local all = call('HGETALL', d.b)
    d.field, d.used, d.held, d.old = 'u' .. str(bucket), 0, 0, {}
    for j = 1, #all, 2 do
      local n = string.match(all[j], '^u(%d+)$')
      if n and tonumber(n) >= bucket - 60 then d.used = d.used + tonumber(all[j + 1]) elseif n then d.old[#d.old + 1] = all[j] end
      if all[j] == 'held' then d.held = tonumber(all[j + 1]) end
    end
  else
    local c = call('HMGET', d.b, 'used', 'held')
    d.field, d.used, d.held, d.fresh = 'used', tonumber(c[1] or '0'), tonumber(c[2] or '0'), not c[2]
  end
  d.dead = call('ZRANGEBYSCORE', d.x, '-inf', now, 'LIMIT', 0, 1)
end
for _, r in ipairs(R) do r.tat = math.max(now, tonumber(call('GET', r.key) or '0')) end

-- Tidy: limits that are news, holds that their owners let expire, buckets that no longer count.
for _, d in ipairs(D) do
  if d.news then call('HSET', KEYS[3], d.id, str(d.ver) .. '|' .. str(d.limit)) end
  while #d.dead > 0 do
    local dead, sum = call('ZRANGEBYSCORE', d.x, '-inf', now, 'LIMIT', 0, 64), 0
    for _, member in ipairs(dead) do sum = sum + tonumber(string.match(member, '|(%d+)$')) end
    call('ZREM', d.x, unpack(dead))
    if sum > 0 then
      d.held = call('HINCRBY', d.b, 'held', '-' .. str(sum))
      call('HINCRBY', d.b, 'expired', str(sum))
    end
    if #dead < 64 then break end
    d.dead = call('ZRANGEBYSCORE', d.x, '-inf', now, 'LIMIT', 0, 1)
  end
  if d.old and #d.old > 0 then call('HDEL', d.b, unpack(d.old)) end
end

if mine[1] then
  local reply = { 'OK', now, tonumber(mine[1]) }
  for i, d in ipairs(D) do
    for _, v in ipairs({ d.field, d.limit, d.used, d.held, tonumber(mine[i + 1]) }) do reply[#reply + 1] = v end
  end
  for _, r in ipairs(R) do
    for _, v in ipairs({ r.limit, 0, 0 }) do reply[#reply + 1] = v end
  end
  return reply
end

-- Decide. How much output fits into what is free; a caller who named no limit gets a share of that.
local function output(free, per, whole)
  local fit = math.floor(free / per)  -- exact, since both are below 2^53
  if share > 0 and not whole then fit = math.min(fit, math.max(least, math.floor(fit * share / 1000))) end
  return fit
end
-- What all agree on, and who refuses; `idle`: were nothing held. More than a whole rate limit can never be granted.
local function grant(idle)
  local granted, no = wanted, nil
  for i, d in ipairs(D) do
    if d.binds then
      local free = d.limit - d.used - (idle and 0 or d.held)
      if d.need > free then
        no = no or i
      elseif d.per > 0 then
        granted = math.min(granted, output(free - d.fixed, d.per, d.full))
      end
    end
  end
  for _, r in ipairs(R) do
    if r.per > 0 and r.fixed + r.per * least <= r.limit then granted = math.min(granted, output(r.limit - r.fixed, r.per, false)) end
  end
  return granted, no
end
local function too_fast(granted)
  for i, r in ipairs(R) do
    local cost = r.fixed + r.per * granted
    r.each = r.limit > 0 and r.window / r.limit or r.window * 1000
    r.next = r.tat + cost * r.each
    if (r.limit == 0 and cost > 0) or r.next - now > r.window + 0.001 then  -- the thousandth is for sums of fractions
      return { 'RATE', now, i, r.limit, math.ceil(math.min(r.next - now - r.window, r.window)) }
    end
  end
end

local idle, spent = grant(true)
local granted, held = grant(false)
local no = spent or held
if no then
  local d, slow = D[no], not spent and too_fast(idle)
  if slow then return slow end
  return { 'DENY', now, spent and 'spent' or 'held', no, d.limit, d.used, d.held, d.need }
end
local slow = too_fast(granted)
if slow then return slow end

-- Do.
local reply, hold = { 'OK', now, granted }, str(granted)
for i, d in ipairs(D) do
  local amount = d.fixed + d.per * granted
  if not d.binds then amount = math.min(amount, math.max(0, MAX - d.used - d.held)) end  -- it refuses nothing, and must not overflow
  call('ZADD', d.x, now + ttl, ARGV[3] .. '.' .. seq .. '|' .. str(amount))
  call('HINCRBY', d.b, 'held', str(amount))
  hold = hold .. '|' .. str(amount)
  local kept = d.to > 0 and d.to + KEPT_MS or now + 120 * d.bucket + KEPT_MS
  -- Each write is one more in the file and for the replicas. What was held on until now has its end already.
  if d.bucket > 0 or (d.to > 0 and d.fresh) then call('PEXPIREAT', d.b, str(kept)) end
  if d.bucket > 0 or (d.to > 0 and d.held == 0) then call('PEXPIREAT', d.x, str(kept)) end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = d.field, d.limit, d.used, d.held + amount, amount
end
for _, r in ipairs(R) do
  call('SET', r.key, string.format('%.3f', r.next), 'PX', math.ceil(r.next - now) + 1000)
  for _, v in ipairs({ r.limit, math.max(0, math.floor((r.window - (r.next - now)) / r.each)), math.ceil(r.next - now) }) do reply[#reply + 1] = v end
end
call('HSET', KEYS[2], 'h:' .. seq, hold)
if not s[1] then  -- else a heartbeat does it
  call('HSETNX', KEYS[2], 'low', '0')
  call('PEXPIRE', KEYS[2], 14 * 86400000)
end
if not session or tonumber(session) < now - ttl / 3 then  -- see generation.lua
  call('ZADD', KEYS[4], now, ARGV[3])
  if not session or tonumber(session) < now - ttl * 4 / 3 then call('HINCRBY', KEYS[1], 'born', 1) end
end
if now > clk + 50 then call('HSET', KEYS[1], 'clk', str(now)) end
return reply
