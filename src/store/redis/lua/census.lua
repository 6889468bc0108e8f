-- Counts, and who waits longest: the heads of the parts that have work.
-- KEYS[1] prefix
-- ARGV[1] most of those that are due
-- Output  {now, identity, counters, streams, due, when the first one is or was due or -1, for each head: part, record}
local answer = { now, call('HGET', P .. 'meta', 'identity'), call('HGETALL', P .. 'c'), call('HGETALL', P .. 'streams'),
  math.min(call('ZCOUNT', P .. 'due', '-inf', now), tonumber(ARGV[1])), tonumber(call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')[2] or -1) }
local function head(part, id)
  local rec = id and call('HGET', P .. 'jobs', id)
  if rec then
    answer[#answer + 1] = part
    answer[#answer + 1] = rec
  end
end
for _, part in ipairs(call('ZRANGE', P .. 'suspected', 0, -1)) do
  head(part, call('ZRANGE', P .. 'suspects:' .. part, 0, 0)[1])
end
for _, part in ipairs(call('ZRANGE', P .. 'waiting', 0, -1)) do
  head(part, call('ZRANGE', P .. 'back:' .. part, 0, 0)[1])
  local done = false
  for _, entry in ipairs(call('LRANGE', P .. 'ready:' .. part, 0, 3)) do
    local ord, n = unpk('>I6I2', entry)
    for i = 0, math.min(n, 64) - 1 do
      if not done and not call('ZSCORE', P .. 'gaps', ord + i) then
        local seq = ord + i
        local id = #entry > 10 and sub(entry, 11 + i * 16, 26 + i * 16)
          or call('GETRANGE', P .. 'log:' .. floor(seq / CHUNK), (seq % CHUNK) * 16, (seq % CHUNK) * 16 + 15)
        head(part, id)
        done = true
      end
    end
    if done then break end
  end
end
return answer
