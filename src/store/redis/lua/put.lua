-- Writes a record if its version is still the expected one.
-- KEYS[1] prefix · ARGV[1] space [2] key [3] expected version [4] value, '' deletes [5] kept for ms, or ''
-- Output  {1, version} | {0, what is there or false}
local hash, member = P .. 'records:' .. ARGV[1], ARGV[1] .. ' ' .. ARGV[2]
local there, version = call('HGET', hash, ARGV[2]), 0
if there then
  local ends = unpk('>I6', there, 13)
  if ends > 0 and ends <= now then there = false else version = unpk('>I6', there, 1) end
end
if version ~= tonumber(ARGV[3]) then return { 0, there } end
if ARGV[4] == '' then
  call('HDEL', hash, ARGV[2])
  call('ZREM', P .. 'keys:' .. ARGV[1], ARGV[2])
  call('ZREM', P .. 'records_until', member)
  if there and ARGV[1] == 'control' then controls_changed() end
  return { 1, 0 }
end
version = call('INCR', P .. 'versions') -- one sequence, so that a recreated record never repeats a version
local ends = ARGV[5] ~= '' and now + tonumber(ARGV[5]) or 0
call('HSET', hash, ARGV[2], pack('>I6I6I6', version, now, ends) .. ARGV[4])
call('ZADD', P .. 'keys:' .. ARGV[1], 0, ARGV[2])
if ends > 0 then
  call('ZADD', P .. 'records_until', ends, member)
else
  call('ZREM', P .. 'records_until', member)
end
if ARGV[1] == 'control' then controls_changed() end
return { 1, version }
