-- Change one stored budget or key, and tell every proxy: the configuration's version is compared at each reserve.
--
-- KEYS  1 general, 2 hash of what is stored, 3 limits, 4 audit stream.
-- ARGV  1 field, 2 value (empty: remove), 3 audit entry, 4.. budgets whose limit is to be forgotten.
-- Returns  the new version | -1 when there was nothing to remove
local call = redis.call
if ARGV[2] == '' then
  if call('HDEL', KEYS[2], ARGV[1]) == 0 then return -1 end
else
  call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
for i = 4, #ARGV do call('HDEL', KEYS[3], ARGV[i]) end
call('XADD', KEYS[4], 'MAXLEN', '~', 100000, '*', 'e', ARGV[3])
return call('HINCRBY', KEYS[1], 'cfg', 1)
