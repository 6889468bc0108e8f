-- Installs an activation if the generation is still the expected one, and records it.
-- KEYS[1] prefix · ARGV[1] expected generation, or '' for none [2] body [3] release [4] generation
-- [5] confirm by, or '' [6] fallback, or '' [7] ledger entry
-- Output  {1} | {0, what is there or false}
local there = call('HMGET', P .. 'activation', 'generation', 'body')
if (there[1] or '') ~= ARGV[1] then return { 0, there[2] } end
call('DEL', P .. 'activation')
call('HSET', P .. 'activation', 'body', ARGV[2], 'release', ARGV[3], 'generation', ARGV[4])
if ARGV[5] ~= '' then call('HSET', P .. 'activation', 'confirm_by', ARGV[5]) end
if ARGV[6] ~= '' then call('HSET', P .. 'activation', 'fallback', ARGV[6]) end
call('RPUSH', P .. 'ledger', pack('>I6', now) .. ARGV[7])
wake()
return { 1 }
