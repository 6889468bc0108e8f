-- Pauses a queue or resumes it, and records it; resuming one that is not paused does nothing.
-- KEYS[1] prefix · ARGV[1] queue [2] 1: pause, 0: resume [3] for so long, ms, or '' [4] by whom, as JSON [5] ledger entry
-- [6] most queues
-- Output  {1, the pause that stood before or false} | {0} too many are paused
local queue, ends, before = ARGV[1], call('ZSCORE', P .. 'paused', ARGV[1]), false
if ends and tonumber(ends) > now then before = call('HGET', P .. 'pauses', queue) end
if ARGV[2] == '0' then
  if not before then return { 1, false } end
  call('ZREM', P .. 'paused', queue)
  call('HDEL', P .. 'pauses', queue)
else
  if not before and call('ZCOUNT', P .. 'paused', '(' .. now, '+inf') >= tonumber(ARGV[6]) then return { 0 } end
  ends = ARGV[3] ~= '' and now + tonumber(ARGV[3])
  call('ZADD', P .. 'paused', ends or '+inf', queue)
  call('HSET', P .. 'pauses', queue, pack('>I6I6', now, ends or 0) .. ARGV[4])
end
call('RPUSH', P .. 'ledger', pack('>I6', now) .. ARGV[5])
controls_changed()
return { 1, before }
