-- Installs an activation if what stands is still, byte for byte, what its caller saw. The generation would not do: a deadline
-- moves, and a commit comes, without another one.
-- KEYS[1] prefix · ARGV[1] the body that was seen, or '' for none [2] body [3] release [4] generation
-- [5] confirm by, or '' [6] fallback, or '' [7] ledger entry, or '' when it changes nothing for anybody who waits
-- [8] space, or '' [9] key [10] version of the record that must still be what was read
-- Output  1 | 0 something else is there | 2 the guard is not what it was
if ARGV[8] ~= '' then
  local held = call('HGET', P .. 'records:' .. ARGV[8], ARGV[9])
  if not held or unpk('>I6', held, 1) ~= tonumber(ARGV[10]) then return 2 end
end
if (call('HGET', P .. 'activation', 'body') or '') ~= ARGV[1] then return 0 end
call('DEL', P .. 'activation')
call('HSET', P .. 'activation', 'body', ARGV[2], 'release', ARGV[3], 'generation', ARGV[4])
if ARGV[5] ~= '' then call('HSET', P .. 'activation', 'confirm_by', ARGV[5]) end
if ARGV[6] ~= '' then call('HSET', P .. 'activation', 'fallback', ARGV[6]) end
if ARGV[7] ~= '' then
  call('RPUSH', P .. 'ledger', pack('>I6', now) .. ARGV[7])
  wake()
end
return 1
