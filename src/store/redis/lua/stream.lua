-- The number of a queue and kind, given once.
-- KEYS[1] prefix · ARGV[1] queue · ARGV[2] kind · ARGV[3] most there may be · ARGV[4] identity of the store, if it has none
-- Output  {number, or -1 when there are too many; identity}
call('HSETNX', P .. 'meta', 'identity', ARGV[4])
local identity = call('HGET', P .. 'meta', 'identity')
local name = ARGV[1] .. ' ' .. ARGV[2]
local known = call('HGET', P .. 'streams', name)
if known then return { tonumber(known), identity } end
local sid = call('HLEN', P .. 'streams') + 1
if sid > tonumber(ARGV[3]) then return { -1, identity } end
call('HSET', P .. 'streams', name, sid)
call('HSET', P .. 'queue', sid, ARGV[1])
call('HSET', P .. 'kind', sid, ARGV[2])
return { sid, identity }
