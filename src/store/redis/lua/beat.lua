-- A worker says that it lives.
-- KEYS[1] prefix · ARGV[1] worker [2] incarnation [3] state, or `joining` [4] body
-- Output  {0, now, revision of controls, what maxmemory-policy is, if it may be asked} known | {1, now, …} took the name over | {2} superseded
local control = tonumber(call('HGET', P .. 'meta', 'control') or 0)
local known = call('HGET', P .. 'workers', ARGV[1])
local same = known and sub(known, 1, 16) == ARGV[2]
if known and not same and ARGV[3] ~= 'joining' then return { 2 } end -- only the first word of a process takes a name over
if ARGV[3] == 'stopped' then
  call('HDEL', P .. 'workers', ARGV[1])
  call('ZREM', P .. 'seen', ARGV[1])
  return { 0, now, control }
end
local since = same and sub(known, 23, 28) or pack('>I6', now)
call('HSET', P .. 'workers', ARGV[1], ARGV[2] .. pack('>I6', now) .. since .. ARGV[4])
call('ZADD', P .. 'seen', now, ARGV[1])
local memory = redis.pcall('INFO', 'memory')
local policy = type(memory) == 'string' and string.match(memory, 'maxmemory_policy:(%S+)') or ''
return { same and 0 or 1, now, control, policy }
