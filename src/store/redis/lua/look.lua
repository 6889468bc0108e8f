-- Tells of jobs, as of one moment.
-- KEYS[1] prefix · ARGV[1] nonce of a lease, or '' · ARGV[2…] ids
-- Output  {now, identity, lease without what it holds or false, for each id: record, ended, list it stands in or '', 1 if it is to be cancelled}
local lease = ARGV[1] ~= '' and call('HGET', P .. 'leases', ARGV[1])
if lease then
  local wlen = byte(lease, 24)
  lease = sub(lease, 1, 25 + wlen + byte(lease, 25 + wlen))
end
local answer, wishes = { now, call('HGET', P .. 'meta', 'identity'), lease }, call('EXISTS', P .. 'cancel') == 1
for i = 2, #ARGV do
  local id = ARGV[i]
  local rec = call('HGET', P .. 'jobs', id)
  local ended, where, wish = false, '', 0
  if rec and #rec >= 18 and byte(rec, 15) < 128 then
    ended = call('HGET', P .. 'completed', id)
    if not ended and (not is_cold(rec) or byte(rec, 29) == 0) then where = stands(id, rec) or '' end
    if wishes then wish = call('SISMEMBER', P .. 'cancel', id) end
  end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = rec, ended, where, wish
end
return answer
