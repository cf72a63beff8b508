-- Reserve a call's worst case on all of its budgets and limits, or on none of them.
-- Everything is checked and read before the first write: a script that fails half-way keeps what it wrote.
-- Amounts are integers up to 2^53-1, written as they came or by %.0f (`..` and cjson lose digits). Times are in ms.
-- `+ 0` makes a number of a text that is one, at half the price of tonumber.
--
-- KEYS  1 general, 2 session, 3 limits, 4 sessions; then for each draw: its counters, its holds; then one for each rate.
-- ARGV  1 run id of the server, 2 configuration version, 3 sid, 4 seq, 5 ttl_ms,
--       6 wanted output, 7 least output, 8 share in thousandths of what is free (0: the caller named a limit),
--       9 number of draws, 10 number of rates;
--       for each draw 4 values: budget, its terms, fixed, per output. The terms are one text, since they are the same for every
--         call: version|limit|binds (1 hard, 0 soft or shadow)|full (1: all that is wanted or nothing)|start_ms|end_ms (0: never)
--         |bucket_ms (0: not rolling);
--       for each rate 4 values: limit per window, window_ms, fixed, per output.
-- Returns  OK  now granted, then for each draw: field, limit, used, held, amount; then for each rate: limit, remaining, reset_ms
--          DENY now spent|held draw limit used held need     RATE now rate limit wait_ms
--          CONFIG now version | GEN now | LEARN now until_ms | CLOCK now draw | TERMINAL now
-- Asked again for a seq that holds already, it changes nothing and returns what that call was granted.
local DRAW, RATE, HEAD, KEPT_MS, MAX, JUMP_MS = 4, 4, 10, 45 * 86400000, 9007199254740991, 600000
local TERMS = '^((%d+)|(%d+))|(%d)|(%d)|(%d+)|(%d+)|(%d+)$'
local call, find, format, match = redis.call, string.find, string.format, string.match  -- a global is looked up at each use
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

local function refuse(i) error('BURSAR argument ' .. i .. ' is not an amount') end
local function int(i)
  local s = ARGV[i]
  local n = s and find(s, '^%d+$') and s + 0
  if not n or n > MAX then refuse(i) end
  return n
end
local function str(n) return format('%.0f', n) end

local sid, seq, ttl, wanted, least, share, draws, rates = ARGV[3], ARGV[4], int(5), int(6), int(7), int(8), int(9), int(10)
int(4)
if #KEYS ~= 4 + 2 * draws + rates or #ARGV ~= HEAD + DRAW * draws + RATE * rates then error('BURSAR wrong number of keys') end

local t = call('TIME')
local now = t[1] * 1000 + floor(t[2] / 1000)
local g = call('HMGET', KEYS[1], 'gen', 'learn', 'clk', 'cfg')
local clk = (g[3] or 0) + 0
if clk > now then now = clk end

local D, ids, R, binds, elsewhen = {}, {}, {}, false, nil
for i = 1, draws do
  local a = HEAD + (i - 1) * DRAW
  local told, ver, limit, hard, full, from, to, bucket = match(ARGV[a + 2], TERMS)  -- told: version|limit, as KEYS[3] has it
  if not told or max(ver, limit, from, to, bucket) > MAX then refuse(a + 2) end
  local fixed, per = int(a + 3), int(a + 4)
  local d = { b = KEYS[3 + 2 * i], x = KEYS[4 + 2 * i], told = told, limit = limit + 0, fixed = fixed, per = per,
    binds = hard == '1', full = full == '1', need = fixed + per * (full == '1' and wanted or least), to = to + 0, bucket = bucket + 0,
    field = 'used', used = 0, held = 0, dead = 0, fresh = false }  -- sixteen: one more takes twice the room
  D[i], ids[i] = d, ARGV[a + 1]
  binds = binds or d.binds
  if now < from + 0 or (d.to > 0 and now >= d.to) then elsewhen = elsewhen or i end
end
for i = 1, rates do
  local a = HEAD + DRAW * draws + (i - 1) * RATE
  R[i] = { key = KEYS[4 + 2 * draws + i], limit = int(a + 1), window = int(a + 2), fixed = int(a + 3), per = int(a + 4) }
end

if g[1] ~= ARGV[1] then return { 'GEN', now } end
local s = call('HMGET', KEYS[2], 'low', 'd:' .. seq, 'h:' .. seq)
local session = call('ZSCORE', KEYS[4], sid)
if clk > 0 and now > clk + JUMP_MS and call('ZCOUNT', KEYS[4], clk - ttl, '+inf') > 0 then
  -- The clock jumped (or the server slept) under living sessions: all that they hold seems to have expired. Learn it anew.
  call('HSET', KEYS[1], 'gen', '', 'clk', str(now))
  return { 'GEN', now }
end
if s[2] or (s[1] and s[1] + 0 >= seq + 0) then return { 'TERMINAL', now } end
local member, mine = sid .. '.' .. seq .. '|', nil  -- mine: granted, amount, amount … if this seq holds already
if s[3] then
  mine = {}
  for n in string.gmatch(s[3], '%d+') do mine[#mine + 1] = n end
  for i, d in ipairs(D) do
    local score = call('ZSCORE', d.x, member .. (mine[i + 1] or ''))
    if not score or tonumber(score) <= now then return { 'TERMINAL', now } end
  end
else
  if binds and g[2] and g[2] + 0 > now then return { 'LEARN', now, g[2] + 0 } end
  if (g[4] or '0') ~= ARGV[2] then return { 'CONFIG', now, g[4] or '0' } end
  if elsewhen then return { 'CLOCK', now, elsewhen } end
end

-- Read all.
-- Of a rolling window its oldest bucket counts whole, so that no window of that length is ever over.
local function read_rolling(d)
  local bucket, all = floor(now / d.bucket), call('HGETALL', d.b)
  d.field, d.old = 'u' .. str(bucket), {}
  for j = 1, #all, 2 do
    local n = match(all[j], '^u(%d+)$')
    if n and tonumber(n) >= bucket - 60 then d.used = d.used + all[j + 1] elseif n then d.old[#d.old + 1] = all[j] end
    if all[j] == 'held' then d.held = tonumber(all[j + 1]) end
  end
end
-- The higher version of a limit wins; of equals, the one who speaks.
local function news(d, known)
  local ver, limit = match(known or '', '^(%d+)|(%d+)$')
  if ver and tonumber(ver) > tonumber(match(d.told, '^%d+')) then d.limit = tonumber(limit) else return true end
end
local known = draws > 0 and call('HMGET', KEYS[3], unpack(ids))
for i = 1, draws do
  local d = D[i]
  if known[i] ~= d.told then d.news = news(d, known[i]) end
  if d.bucket > 0 then
    read_rolling(d)
  else
    local c = call('HMGET', d.b, 'used', 'held')
    d.used, d.held, d.fresh = (c[1] or 0) + 0, (c[2] or 0) + 0, not c[2]
  end
  d.dead = call('ZCOUNT', d.x, '-inf', now)
end
for i = 1, rates do
  local r = R[i]
  r.tat = max(now, call('GET', r.key) or 0)
end

-- Tidy: limits that are news, holds that their owners let expire, buckets that no longer count.
for i = 1, draws do
  local d = D[i]
  if d.news then call('HSET', KEYS[3], ids[i], d.told) end
  while d.dead > 0 do
    local dead, sum = call('ZRANGEBYSCORE', d.x, '-inf', now, 'LIMIT', 0, 64), 0
    for _, one in ipairs(dead) do sum = sum + match(one, '|(%d+)$') end
    call('ZREM', d.x, unpack(dead))
    if sum > 0 then
      d.held = call('HINCRBY', d.b, 'held', '-' .. str(sum))
      call('HINCRBY', d.b, 'expired', str(sum))
    end
    d.dead = d.dead - #dead
  end
  if d.old and #d.old > 0 then call('HDEL', d.b, unpack(d.old)) end
end

if mine then
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
  local fit = floor(free / per)  -- exact, since both are below 2^53
  if share > 0 and not whole then fit = min(fit, max(least, floor(fit * share / 1000))) end
  return fit
end
-- What all agree on, and who refuses; `idle`: were nothing held. More than a whole rate limit can never be granted.
local function grant(idle)
  local granted, no = wanted, nil
  for i = 1, draws do
    local d = D[i]
    if d.binds then
      local free = d.limit - d.used - (idle and 0 or max(0, d.held))  -- below 0 only if the server lost one of its keys
      if d.need > free then
        no = no or i
      elseif d.per > 0 then
        granted = min(granted, output(free - d.fixed, d.per, d.full))
      end
    end
  end
  for i = 1, rates do
    local r = R[i]
    if r.per > 0 and r.fixed + r.per * least <= r.limit then granted = min(granted, output(r.limit - r.fixed, r.per, false)) end
  end
  return granted, no
end
local function too_fast(granted)
  for i = 1, rates do
    local r = R[i]
    local cost = r.fixed + r.per * granted
    r.each = r.limit > 0 and r.window / r.limit or r.window * 1000
    r.next = r.tat + cost * r.each
    if (r.limit == 0 and cost > 0) or r.next - now > r.window + 0.001 then  -- the thousandth is for sums of fractions
      return { 'RATE', now, i, r.limit, ceil(min(r.next - now - r.window, r.window)) }
    end
  end
end

local granted, no = grant(false)
if no then
  local idle, spent = grant(true)
  local d, slow = D[spent or no], not spent and too_fast(idle)
  if slow then return slow end
  return { 'DENY', now, spent and 'spent' or 'held', spent or no, d.limit, d.used, d.held, d.need }
end
local slow = too_fast(granted)
if slow then return slow end

-- Do.
local reply, hold, due, n = { 'OK', now, granted }, str(granted), str(now + ttl), 3
for i = 1, draws do
  local d = D[i]
  local amount = d.fixed + d.per * granted
  if not d.binds then amount = min(amount, max(0, MAX - d.used - d.held)) end  -- it refuses nothing, and must not overflow
  local written = str(amount)
  call('ZADD', d.x, due, member .. written)
  call('HINCRBY', d.b, 'held', written)
  hold = hold .. '|' .. written
  -- Each write is one more in the file and for the replicas. What was held on until now has its end already.
  if d.bucket > 0 or (d.to > 0 and (d.fresh or d.held == 0)) then
    local kept = str(d.to > 0 and d.to + KEPT_MS or now + 120 * d.bucket + KEPT_MS)
    if d.bucket > 0 or d.fresh then call('PEXPIREAT', d.b, kept) end
    if d.bucket > 0 or d.held == 0 then call('PEXPIREAT', d.x, kept) end
  end
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = d.field, d.limit, d.used, d.held + amount, amount
  n = n + 5
end
for i = 1, rates do
  local r = R[i]
  local wait = r.next - now
  call('SET', r.key, format('%.3f', r.next), 'PX', ceil(wait) + 1000)
  reply[n + 1], reply[n + 2], reply[n + 3] = r.limit, max(0, floor((r.window - wait) / r.each)), ceil(wait)
  n = n + 3
end
call('HSET', KEYS[2], 'h:' .. seq, hold)
if not s[1] then  -- else a heartbeat does it
  call('HSETNX', KEYS[2], 'low', '0')
  call('PEXPIRE', KEYS[2], 14 * 86400000)
end
if not session or session + 0 < now - ttl / 3 then  -- see generation.lua
  call('ZADD', KEYS[4], now, sid)
  if not session or session + 0 < now - ttl * 4 / 3 then call('HINCRBY', KEYS[1], 'born', 1) end
end
if now > clk + 50 then call('HSET', KEYS[1], 'clk', str(now)) end
return reply
