-- What time has come for. Ends what needs no thought, and tells the client of the rest.
-- KEYS[1] prefix · ARGV[1] lease, ms · ARGV[2] most of each · ARGV[3] kept completed, ms · ARGV[4] kept ended, ms · ARGV[5] kept presence, ms
-- ARGV[6] kept ended canaries, ms · ARGV[7] most of them · ARGV[8] the sweeper's capability · ARGV[9…] the kinds it can run
-- Output  {now, next due or -1, due, overdue leases, too late, final, queues to trim, parked, trimmed}
local lease, max = tonumber(ARGV[1]), tonumber(ARGV[2])
local meta = call('HMGET', P .. 'meta', 'swept', 'rescue_from')
-- Rule 10. When nobody swept for most of a lease, the store was away, or every worker was: one lease length must pass.
local rescue_from = tonumber(meta[2] or 0)
if now - tonumber(meta[1] or 0) > lease * 3 / 4 then rescue_from = now + lease end
call('HSET', P .. 'meta', 'swept', now, 'rescue_from', rescue_from)

local function upto(key, score, n) return call('ZRANGEBYSCORE', P .. key, '-inf', score, 'LIMIT', 0, n) end
local due, late, final = upto('due', now, max), upto('expiry', now, max), upto('final', now - tonumber(ARGV[4]) - 1, 200)
local overdue = {}
if now >= rescue_from then overdue = upto('until', now - 1, 64) end
local old = call('ZCOUNT', P .. 'canaries', '-inf', now - tonumber(ARGV[6]) - 1)
local gone = math.min(math.max(old, call('ZCARD', P .. 'canaries') - tonumber(ARGV[7])), 200)
if gone > 0 then
  for _, id in ipairs(call('ZRANGE', P .. 'canaries', 0, gone - 1)) do final[#final + 1] = id end
end
local lapsed = upto('paused', now, max)
for _, queue in ipairs(lapsed) do
  call('ZREM', P .. 'paused', queue)
  call('HDEL', P .. 'pauses', queue)
end
if #lapsed > 0 then wake() end -- its jobs can be claimed again
local next_due = -1
for _, key in ipairs({ 'due', 'paused' }) do
  local first = call('ZRANGEBYSCORE', P .. key, '(' .. now, '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if first and (next_due < 0 or tonumber(first) < next_due) then next_due = tonumber(first) end
end

for _, id in ipairs(upto('remembered', now, max)) do
  call('ZREM', P .. 'remembered', id)
  local rec = call('HGET', P .. 'jobs', id)
  if rec and byte(rec, 15) >= 128 then call('HDEL', P .. 'jobs', id) end
end
for _, key in ipairs(upto('unique_until', now, max)) do
  call('ZREM', P .. 'unique_until', key)
  if sub(call('HGET', P .. 'unique', key) or '', 1, 1) == 'K' then call('HDEL', P .. 'unique', key) end
end
for _, member in ipairs(upto('records_until', now, max)) do
  local space, key = string.match(member, '^(%a+) (.*)$')
  call('ZREM', P .. 'records_until', member)
  call('HDEL', P .. 'records:' .. space, key)
  call('ZREM', P .. 'keys:' .. space, key)
  if space == 'control' then controls_changed() end
end
for _, worker in ipairs(upto('seen', now - tonumber(ARGV[5]) - 1, max)) do
  call('ZREM', P .. 'seen', worker)
  call('HDEL', P .. 'workers', worker)
end

local trims, trimmed = {}, 0
for _, queue in ipairs(call('HKEYS', P .. 'kept')) do
  while trimmed < max do
    local oldest = call('LINDEX', P .. 'done:' .. queue, 0)
    if not oldest or unpk('>I6', oldest, 2) >= now - tonumber(ARGV[3]) then break end
    local n = trim_plain(queue)
    if not n then
      trims[#trims + 1] = queue
      break
    end
    trimmed = trimmed + n
  end
end
flush_counts()

local parked, kinds = {}, {}
for i = 9, #ARGV do kinds[ARGV[i]] = true end
for _, key in ipairs(call('SMEMBERS', P .. 'parked')) do
  local why, sid, by = string.match(key, '^parked:(%a+):(%d+):?(.*)$')
  if call('EXISTS', P .. key) == 0 then
    call('SREM', P .. 'parked', key)
  elseif #parked < max and kinds[call('HGET', P .. 'kind', sid)] and (why == 'unknown' or by ~= ARGV[8]) then
    for _, id in ipairs(call('ZRANGE', P .. key, 0, max - #parked - 1)) do parked[#parked + 1] = id end
  end
end
return { now, next_due, due, overdue, late, final, trims, parked, trimmed }
