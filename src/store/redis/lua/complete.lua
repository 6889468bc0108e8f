-- Settles jobs that are done. A group of which the lease does not hold every job is refused, and nothing of it is done.
-- KEYS[1] prefix · ARGV[1] nonce · then six for each group: queue, flags (1: keys to remember), ids, how long each ran (4 bytes, µs),
-- lengths of the pieces of ids that follow each other in the lease (2 bytes), what a trim needs (streams and chunks, as in `trim_plain`)
-- Output  {0} no such lease | {1, now, for each group: '' or the indexes that are not held, queues that the client must trim…}
local lease = call('HGET', P .. 'leases', ARGV[1])
if not lease then return { 0 } end
local wlen = byte(lease, 24)
local rlen = byte(lease, 25 + wlen)
local from = 26 + wlen + rlen
local head, held = sub(lease, 1, from - 1), sub(lease, from)
local before = #held

local function where(piece)
  local at = find(held, piece, 1, true)
  while at and (at - 1) % 16 ~= 0 do at = find(held, piece, at + 1, true) end
  return at
end

local answer, wishes = { 1, now }, call('EXISTS', P .. 'cancel') == 1
local keep = {}
-- of each: under which nonce, when it was claimed and done, by which worker of which release
local story = ARGV[1] .. sub(lease, 2, 7) .. pack('>I6', now) .. sub(lease, 24, from - 1)
for g = 2, #ARGV, 6 do
  local queue, flags, ids, rans, pieces, trim = ARGV[g], ARGV[g + 1], ARGV[g + 2], ARGV[g + 3], ARGV[g + 4], ARGV[g + 5]
  local saved, refused, at = held, {}, 1
  for p = 1, #pieces, 2 do
    local size = unpk('>I2', pieces, p) * 16
    local piece = sub(ids, at, at + size - 1)
    local found = where(piece)
    if found then
      held = sub(held, 1, found - 1) .. sub(held, found + size)
    else
      for i = at, at + size - 1, 16 do
        found = where(sub(ids, i, i + 15))
        if found then
          held = sub(held, 1, found - 1) .. sub(held, found + 16)
        else
          refused[#refused + 1] = (i - 1) / 16
        end
      end
    end
    at = at + size
  end
  if #refused > 0 then
    held = saved
    answer[#answer + 1] = refused
  else
    local values, n = {}, #ids / 16
    for i = 1, n do
      local id = sub(ids, i * 16 - 15, i * 16)
      values[i * 2 - 1] = id
      values[i * 2] = sub(rans, i * 4 - 3, i * 4) .. story
      if wishes then call('SREM', P .. 'cancel', id) end
    end
    call('HSET', P .. 'completed', unpack(values))
    if queue == '~canary' then -- theirs is another retention
      for i = 1, n do call('ZADD', P .. 'canaries', now, values[i * 2 - 1]) end
    else
      call('RPUSH', P .. 'done:' .. queue, string.char(flags) .. pack('>I6', now) .. trim .. ids)
      keep[queue] = call('HINCRBY', P .. 'kept', queue, n)
    end
    local streams = byte(trim, 1)
    for s = 0, streams - 1 do
      local sid, m = unpk('>I2I2', trim, 2 + s * 4)
      count(sid, 1, -m)
      count(sid, 5, m)
      count(sid, 21, m)
    end
    answer[#answer + 1] = ''
  end
end
if #held == 0 then
  call('HDEL', P .. 'leases', ARGV[1])
  call('ZREM', P .. 'until', ARGV[1])
elseif #held < before then
  call('HSET', P .. 'leases', ARGV[1], head .. held)
end
for queue, kept in pairs(keep) do
  while kept > KEEP_COMPLETED do
    local n = trim_plain(queue)
    if not n then answer[#answer + 1] = queue end
    if not n or n == 0 then break end
    kept = kept - n
  end
end
flush_counts()
return answer
