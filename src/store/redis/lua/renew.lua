-- Prolongs leases.
-- KEYS[1] prefix · ARGV[1] lease, ms · ARGV[2…] nonces
-- Output  {now, for each: false when it is lost, or the ids in it that are to be cancelled}
local answer, wishes = { now }, call('SMEMBERS', P .. 'cancel')
for i = 2, #ARGV do
  local lease = call('HGET', P .. 'leases', ARGV[i])
  if lease then
    call('ZADD', P .. 'until', 'XX', now + tonumber(ARGV[1]), ARGV[i])
    local wlen = byte(lease, 24)
    local from, wanted = 26 + wlen + byte(lease, 25 + wlen), ''
    for _, id in ipairs(wishes) do
      local at = find(lease, id, from, true)
      while at and (at - from) % 16 ~= 0 do at = find(lease, id, at + 1, true) end
      if at then wanted = wanted .. id end
    end
    answer[i] = wanted
  else
    answer[i] = false
  end
end
return answer
