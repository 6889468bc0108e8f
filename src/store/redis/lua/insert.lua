-- Stores jobs, all or none.
-- KEYS[1]  prefix of the tier
-- ARGV[1]  ids, 16 bytes each
-- ARGV[2]  JSON: runs [part, priority, first, count, stream or 65535], counts [stream, state, n],
--          due [index, 1 = relative, ms, part, priority, stream], expiry [index, 1 = relative, ms], unique [key, expected, hex id],
--          identity of the store, loud: whether its canaries wake workers
-- ARGV[3…] records without their first 12 bytes
-- Output   {1, now, states of the due ones} | {0, now, index, record, ended, where, …} those that exist | {2, now} a key changed hands |
--          {3} it is another store by now
local ids, plan, n = ARGV[1], cjson.decode(ARGV[2]), #ARGV[1] / 16
if call('HGET', P .. 'meta', 'identity') ~= plan.identity then return { 3 } end
local each = {}
for i = 1, n do each[i] = sub(ids, i * 16 - 15, i * 16) end

local found, exists = call('HMGET', P .. 'jobs', unpack(each)), nil
for i = 1, n do
  local rec = found[i]
  if rec then
    if byte(rec, 15) >= 128 and unpk('>I6', rec, 1) <= now then
      call('ZREM', P .. 'remembered', each[i]) -- its time is over
    else
      exists = exists or { 0, now }
      local ended, where = call('HGET', P .. 'completed', each[i]), false
      if byte(rec, 15) < 128 and not ended then where = stands(each[i], rec) end
      exists[#exists + 1] = i - 1
      exists[#exists + 1] = rec
      exists[#exists + 1] = ended
      exists[#exists + 1] = where or ''
    end
  end
end
if exists then return exists end
for _, u in ipairs(plan.unique) do
  if (call('HGET', P .. 'unique', u[1]) or '') ~= u[2] then return { 2, now } end
end

local base = call('INCRBY', P .. 'seq', n) - n
local head, values, woken = pack('>I6I6', base, now), {}, false
for i = 1, n do
  values[i * 2 - 1] = each[i]
  values[i * 2] = head .. ARGV[i + 2]
end

local function ready(part, priority, first, m, sid)
  local key, start = P .. 'ready:' .. part, base + first
  if is_lane(part) then
    woken = woken or plan.loud -- those that workers send to themselves wake nobody: a fleet sends one every few seconds each
    for i = 1, m do call('ZADD', P .. 'back:' .. part, start + i - 1, each[first + i]) end
    return
  end
  local tail = call('LINDEX', key, -1)
  if tail and #tail == 10 then
    local ord, count, stream = unpk('>I6I2I2', tail)
    if ord + count == start and count + m < 65536 then -- goes on where the last one ended
      call('LSET', key, -1, pack('>I6I2I2', ord, count + m, stream == sid and sid or 65535))
      return
    end
  end
  call('RPUSH', key, pack('>I6I2I2', start, m, sid))
  if not tail then
    call('ZADD', P .. 'waiting', priority, part)
    woken = true
  end
end

local states, places = '', {}
for _, d in ipairs(plan.due) do
  local i, at = d[1], d[2] == 1 and now + d[3] or d[3]
  if at > now then
    local first = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')
    if not first[2] or at < tonumber(first[2]) then woken = true end
    call('ZADD', P .. 'due', at, each[i + 1])
    count(d[6], 2, 1)
    states = states .. '2'
  else -- its time has passed already: available, at its place
    local rec = values[i * 2 + 2]
    values[i * 2 + 2] = sub(rec, 1, 22) .. pack('>I6', base + i) .. '\0' .. sub(rec, 30)
    places[#places + 1] = { d[4], d[5], i, 1, d[6] }
    count(d[6], 0, 1)
    states = states .. '0'
  end
end
call('HSET', P .. 'jobs', unpack(values))
log(base, ids)
for _, r in ipairs(plan.runs) do
  if #places == 0 then
    ready(r[1], r[2], r[3], r[4], r[5])
  else
    places[#places + 1] = r
  end
end
if #places > 0 then
  table.sort(places, function(a, b) return a[3] < b[3] end) -- places in a list rise
  for _, r in ipairs(places) do ready(r[1], r[2], r[3], r[4], r[5]) end
end
for _, e in ipairs(plan.expiry) do
  call('ZADD', P .. 'expiry', e[2] == 1 and now + e[3] or e[3], each[e[1] + 1])
end
for _, u in ipairs(plan.unique) do
  call('HSET', P .. 'unique', u[1], 'L' .. u[3] .. ':' .. base)
  call('ZREM', P .. 'unique_until', u[1])
end
for _, c in ipairs(plan.counts) do count(c[1], c[2], c[3]) end
flush_counts()
if woken then wake() end
return { 1, now, states }
