-- Takes over a lease whose worker is lost: from now on only the new nonce holds its jobs.
-- KEYS[1] prefix · ARGV[1] nonce · ARGV[2] new nonce · ARGV[3] lease, ms · ARGV[4] 1: only when it is overdue · ARGV[5] most jobs
-- Output  the lease, false when there is none (any more), or 1 when it holds more
local overdue = call('ZSCORE', P .. 'until', ARGV[1])
if not overdue or ARGV[4] == '1' and tonumber(overdue) >= now then return false end
local lease = call('HGET', P .. 'leases', ARGV[1])
if not lease then
  call('ZREM', P .. 'until', ARGV[1])
  return false
end
local wlen = byte(lease, 24)
if (#lease - 25 - wlen - byte(lease, 25 + wlen)) / 16 > tonumber(ARGV[5]) then return 1 end
call('HDEL', P .. 'leases', ARGV[1])
call('ZREM', P .. 'until', ARGV[1])
call('HSET', P .. 'leases', ARGV[2], lease)
call('ZADD', P .. 'until', now + tonumber(ARGV[3]), ARGV[2])
return lease
