-- Asks for the cancellation of running jobs. KEYS[1] prefix · ARGV ids · Output  for each 1, or 0 when it does not run
local answer = {}
for i = 1, #ARGV do
  local id, rec = ARGV[i], call('HGET', P .. 'jobs', ARGV[i])
  local runs = rec and byte(rec, 15) < 128 and call('HEXISTS', P .. 'completed', id) == 0
    and (not is_cold(rec) or byte(rec, 29) == 0) and not stands(id, rec)
  if runs then call('SADD', P .. 'cancel', id) end
  answer[i] = runs and 1 or 0
end
return answer
