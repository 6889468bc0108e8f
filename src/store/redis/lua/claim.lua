-- Takes jobs under one lease, if the activation allows it.
-- KEYS[1] prefix · ARGV[1] worker [2] incarnation [3] release [4] generation [5] most jobs [6] lease, ms [7] nonce
-- [8] 1: suspects too [9] seed [10] queues, as `,a,b,`, or `*` for all [11] 1: its canaries, and nothing else
-- Output  {0, now, generation, suspect, more, canaries wait, identity, ids, record…} | {1, now, activation, canaries wait} not active |
--         {2} superseded | {3, now, activation} the dead-man is due | {4} the nonce is somebody else's
local present = call('HGET', P .. 'workers', ARGV[1])
if present and sub(present, 1, 16) ~= ARGV[2] then return { 2 } end
local act = call('HMGET', P .. 'activation', 'body', 'release', 'generation', 'confirm_by', 'fallback')
local generation, lane, only = tonumber(act[3] or 0), '~' .. ARGV[1] .. ':0', ARGV[11] == '1'
local canaries = call('EXISTS', P .. 'back:' .. lane)
local paused = nil
if not only then
  if not act[1] then return { 1, now, false, canaries } end
  if act[4] and now > tonumber(act[4]) and act[5] == ARGV[3] then return { 3, now, act[1] } end
  if act[2] ~= ARGV[3] or tonumber(ARGV[4]) > generation then return { 1, now, act[1], canaries } end
  for _, queue in ipairs(call('ZRANGEBYSCORE', P .. 'paused', '(' .. now, '+inf')) do
    paused = paused or {}
    paused[queue] = true
  end
end

local max, suspects, served = tonumber(ARGV[5]), ARGV[8] == '1', ARGV[10]
local function parts(key)
  local found, all = {}, call('ZREVRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    local queue = (paused or served ~= '*') and sub(all[i], 1, find(all[i], ':', 1, true) - 1)
    if (served == '*' or find(served, ',' .. queue .. ',', 1, true)) and not (paused and paused[queue]) then
      found[#found + 1] = { all[i], tonumber(all[i + 1]) }
    end
  end
  return found
end
local function anything()
  if only then return call('EXISTS', P .. 'back:' .. lane) == 1 end
  return #parts(P .. 'waiting') > 0 or suspects and #parts(P .. 'suspected') > 0
end
if max == 0 then return { 0, now, generation, 0, anything() and 1 or 0, canaries, '', '' } end
local known = call('HGET', P .. 'leases', ARGV[7])
if known then -- who asks again did not hear the answer: it is given again
  if sub(known, 8, 23) ~= ARGV[2] then return { 4 } end
  local wlen = byte(known, 24)
  local again, heard = { 0, now, generation, byte(known, 1), anything() and 1 or 0, canaries, call('HGET', P .. 'meta', 'identity') }, {}
  local at = 26 + wlen + byte(known, 25 + wlen)
  for i = at, #known, 16 do
    local id = sub(known, i, i + 15)
    local rec = call('HGET', P .. 'jobs', id)
    if rec and #rec >= 18 then
      heard[#heard + 1] = id
      again[8 + #heard] = rec
    end
  end
  again[8] = table.concat(heard)
  call('ZADD', P .. 'until', 'XX', now + tonumber(ARGV[6]), ARGV[7])
  return again
end

local ids, mixed, suspect = {}, false, 0
local gaps = call('EXISTS', P .. 'gaps') == 1

-- Which of k places from one on hold jobs that were called off while they waited; those places are done with.
local function called_off(first, k)
  local hits = call('ZRANGEBYSCORE', P .. 'gaps', first, first + k - 1)
  if #hits == 0 then return nil end
  call('ZREM', P .. 'gaps', unpack(hits))
  mixed = true
  local off = {}
  for i = 1, #hits do off[hits[i] + 0] = true end
  return off
end

-- From the head of one part: first what was handed back, then its ready list.
local function take(part, room)
  local back, key, before = P .. 'back:' .. part, P .. 'ready:' .. part, #ids
  local returned = call('ZRANGE', back, 0, room - 1)
  if #returned > 0 then
    call('ZREM', back, unpack(returned))
    for i = 1, #returned do ids[#ids + 1] = returned[i] end
    room, mixed = room - #returned, true
  end
  local looks = 0
  while room > 0 and looks < 40 do
    looks = looks + 1
    local entries = call('LRANGE', key, 0, math.min(room, 16) - 1)
    if #entries == 0 then break end
    local used, rest = 0, nil
    for e = 1, #entries do
      local entry = entries[e]
      local ord, n, sid = unpk('>I6I2I2', entry)
      local m, at, blob = n, 11, entry
      if m > room then m = room end
      local seq, left = ord, m
      while left > 0 do
        local k = left
        if #entry == 10 then -- the ids are in the log
          local chunk, offset = floor(seq / CHUNK), seq % CHUNK
          if k > CHUNK - offset then k = CHUNK - offset end
          blob, at = call('GETRANGE', P .. 'log:' .. chunk, offset * 16, (offset + k) * 16 - 1), 1
        end
        local off = gaps and called_off(seq, k)
        for i = 0, k - 1 do
          if not (off and off[seq + i]) then
            ids[#ids + 1] = sub(blob, at + i * 16, at + i * 16 + 15)
            room = room - 1
          end
        end
        seq, left = seq + k, left - k
      end
      if sid == 65535 then
        mixed = true
      else
        count(sid, 'taken', m)
      end
      if m < n then
        rest = pack('>I6I2I2', ord + m, n - m, sid)
        if #entry > 10 then rest = rest .. sub(entry, 11 + m * 16) end
        used = e - 1
        break
      end
      used = e
      if room <= 0 then break end
    end
    if used > 0 then call('LTRIM', key, used, -1) end
    if rest then
      call('LSET', key, 0, rest)
      if room <= 0 then break end
    end
  end
  if call('EXISTS', key, back) == 0 then call('ZREM', P .. 'waiting', part) end
  return #ids - before
end

if only then
  take(lane, max)
elseif suspects then
  for _, s in ipairs(parts(P .. 'suspected')) do
    local key = P .. 'suspects:' .. s[1]
    local first = call('ZRANGE', key, 0, 0)
    if first[1] then
      call('ZREM', key, first[1])
      if call('EXISTS', key) == 0 then call('ZREM', P .. 'suspected', s[1]) end
      ids[1], mixed, suspect = first[1], true, 1
      break
    end
  end
end
if suspect == 0 and not only then
  local open = parts(P .. 'waiting')
  if #open == 1 then
    take(open[1][1], max)
  elseif #open > 1 then
    -- Two rounds: first every part its share, lower priorities a tenth each, so that none starves; then whoever has
    -- more, strictly by priority. Queues of one priority in random order.
    math.randomseed(tonumber(ARGV[9]))
    for i = #open, 2, -1 do
      local j = math.random(i)
      open[i], open[j] = open[j], open[i]
    end
    table.sort(open, function(a, b) return a[2] > b[2] end)
    local levels = {}
    for _, part in ipairs(open) do
      local last = levels[#levels]
      if last and last[1][2] == part[2] then
        last[#last + 1] = part
      else
        levels[#levels + 1] = { part }
      end
    end
    if #levels > 1 and max < 10 and math.random(10) == 1 then -- too small to divide: now and then it goes lower
      local low = math.random(2, #levels)
      levels[1], levels[low] = levels[low], levels[1]
    end
    local lower = floor(max / 10)
    local highest = math.max(max - lower * (#levels - 1), floor(max / 2))
    for depth, level in ipairs(levels) do
      local each = math.ceil((depth == 1 and highest or lower) / #level)
      for _, part in ipairs(level) do
        local room = math.min(each, max - #ids)
        if room > 0 then take(part[1], room) end
      end
    end
    for _, part in ipairs(open) do
      if max - #ids > 0 then take(part[1], max - #ids) end
    end
  end
end

local more = anything() and 1 or 0
if #ids == 0 then return { 0, now, generation, 0, more, canaries, '', '' } end
local answer = { 0, now, generation, suspect, more, canaries, call('HGET', P .. 'meta', 'identity'), false }
local records = call('HMGET', P .. 'jobs', unpack(ids))
local n = 0
for i = 1, #ids do -- a record that is not there, or has no head, was evicted or damaged: it cannot be run
  if records[i] and #records[i] >= 18 then
    n = n + 1
    ids[n] = ids[i]
    answer[8 + n] = records[i]
  else
    mixed = true
  end
end
for i = n + 1, #ids do ids[i] = nil end
local taken = counts
counts = {}
if mixed then
  for i = 1, n do
    local sid = sid_of(answer[8 + i])
    count(sid, 0, -1)
    count(sid, 1, 1)
  end
else
  for field, m in pairs(taken) do
    local sid = sub(field, 1, find(field, ':', 1, true) - 1)
    count(sid, 0, -m)
    count(sid, 1, m)
  end
end
flush_counts()
local held = table.concat(ids)
answer[8] = held
if n > 0 then
  local head = string.char(suspect) .. pack('>I6', now) .. ARGV[2]
    .. string.char(#ARGV[1]) .. ARGV[1] .. string.char(#ARGV[3]) .. ARGV[3]
  call('HSET', P .. 'leases', ARGV[7], head .. held)
  call('ZADD', P .. 'until', now + tonumber(ARGV[6]), ARGV[7])
end
return answer
