-- Put the real numbers in the place of what was reserved, once; never below 0.
--
-- KEYS  1 usage hash, 2 mark of this operation.
-- ARGV  1 change of prompt, 2 change of completion, 3 change of the total (each may be negative), 4 usage ttl_s, 5 mark ttl_s.
-- Returns  total afterwards
local call = redis.call
for i = 1, 3 do
  if not string.find(ARGV[i] or '', '^%-?%d+$') or #ARGV[i] > 16 then return redis.error_reply('BURSAR argument ' .. i .. ' is not an amount') end
end
if not call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[5]) then return tonumber(call('HGET', KEYS[1], 'total_tokens') or '0') end
for i, field in ipairs({ 'prompt_tokens', 'completion_tokens', 'total_tokens' }) do
  if call('HINCRBY', KEYS[1], field, ARGV[i]) < 0 then call('HSET', KEYS[1], field, 0) end
end
call('EXPIRE', KEYS[1], ARGV[4])
return tonumber(call('HGET', KEYS[1], 'total_tokens'))
