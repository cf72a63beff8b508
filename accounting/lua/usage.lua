-- Add to a user's usage of one cycle, once, if a limit allows it. The total moves with its parts.
--
-- KEYS  1 usage hash, 2 limit, 3 mark of this operation.
-- ARGV  1 prompt, 2 completion, 3 neither (known in total only), 4 check the limit (1) or only count (0),
--       5 usage ttl_s, 6 limit ttl_s, 7 mark ttl_s.
-- Returns  taken (1 or 0), total afterwards, limit (-1: none)
-- Asked again with the same mark it changes nothing and says what it said.
local call = redis.call
for i = 1, 7 do
  if not string.find(ARGV[i] or '', '^%d+$') or #ARGV[i] > 15 then return redis.error_reply('BURSAR argument ' .. i .. ' is not an amount') end
end
local limit = call('GET', KEYS[2])
if limit then call('EXPIRE', KEYS[2], ARGV[6]) end
local total = tonumber(call('HGET', KEYS[1], 'total_tokens') or '0')
local done = call('GET', KEYS[3])
if done then return { tonumber(done), total, tonumber(limit or '-1') } end
local amount = tonumber(ARGV[1]) + tonumber(ARGV[2]) + tonumber(ARGV[3])
local taken = 1
if ARGV[4] == '1' and limit and total + amount > tonumber(limit) then taken = 0 end
if taken == 1 then
  call('HINCRBY', KEYS[1], 'prompt_tokens', ARGV[1])
  call('HINCRBY', KEYS[1], 'completion_tokens', ARGV[2])
  total = call('HINCRBY', KEYS[1], 'total_tokens', string.format('%.0f', amount))
  call('EXPIRE', KEYS[1], ARGV[5])
end
call('SET', KEYS[3], taken, 'EX', ARGV[7])
return { taken, total, tonumber(limit or '-1') }
