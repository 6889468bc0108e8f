-- Moves jobs as the client decided, each only if it is still where and what the client saw.
-- KEYS[1] prefix · ARGV[1] how many new places at most · then 11 for each job:
--   id · first bytes that its record must have · its new record, or '' to leave it
--   source: L leased, A available, C neither · for L the nonce, for C a key to remove it from, or ''
--   target: D due, E ended, C completed, P parked, T tail, B back to its place, S suspect · score; for P the key; for C `µs:keyed`
--   expiry: '' leave, - forget, or when · counts `from:to:total` · wish: 0 or 1, as seen, for L · unique: '' or key=expected=hex id
-- Output  for each job 1: done, 0: not as it was seen
local places, base = tonumber(ARGV[1]), nil
if places > 0 then
  base = call('INCRBY', P .. 'seq', places) - places
  log(base, string.rep('\0', places * 16))
  for seq = base, base + places - 1 do count(floor(seq / CHUNK), 'bury', 1) end
  for field, n in pairs(counts) do bury(tonumber(sub(field, 1, find(field, ':', 1, true) - 1)), n) end
  counts = {}
end

local leases = {}
local function lease_of(nonce)
  local lease = leases[nonce]
  if not lease then
    local text = call('HGET', P .. 'leases', nonce)
    lease = { text = text }
    if text then
      local wlen = byte(text, 24)
      local from = 26 + wlen + byte(text, 25 + wlen)
      lease.head, lease.held = sub(text, 1, from - 1), sub(text, from)
    end
    leases[nonce] = lease
  end
  return lease
end
local function held_at(lease, id)
  if not lease.text then return nil end
  local at = find(lease.held, id, 1, true)
  while at and (at - 1) % 16 ~= 0 do at = find(lease.held, id, at + 1, true) end
  return at
end

local woken, run = false, nil
local function flush_run()
  if run then
    local key = P .. 'ready:' .. run.part
    if call('RPUSH', key, pack('>I6I2I2', run.ord, #run.ids / 16, 65535) .. run.ids) == 1 then
      call('ZADD', P .. 'waiting', run.priority, run.part)
    end
    woken, run = true, nil
  end
end

-- As `complete.lua` writes it, but under no lease and by no worker.
local function complete(id, rec, how)
  local ran, keyed = string.match(how, '^(%d+):(%d)$')
  ran = math.min(tonumber(ran), 4294967295)
  local nobody = string.rep('\0', 16)
  call('HSET', P .. 'completed', id, pack('>I4', ran) .. nobody .. pack('>I6I6', now - floor(ran / 1000), now) .. '\0\0')
  local sid = sid_of(rec)
  local queue = call('HGET', P .. 'queue', sid) or ''
  local trim = '\1' .. pack('>I2I2I2I6I2', sid, 1, 1, floor(seq_of(rec) / CHUNK), 1)
  call('RPUSH', P .. 'done:' .. queue, string.char(keyed) .. pack('>I6', now) .. trim .. id)
  if call('HINCRBY', P .. 'kept', queue, 1) > KEEP_COMPLETED then trim_plain(queue) end
end

local function one(a)
  local id, prefix, rec = ARGV[a], ARGV[a + 1], call('HGET', P .. 'jobs', ARGV[a])
  if not rec or sub(rec, 1, #prefix) ~= prefix then return 0 end
  local source, key, wish, unique = ARGV[a + 3], ARGV[a + 4], ARGV[a + 9], ARGV[a + 10]
  if source ~= 'L' or wish == '' then
  elseif tostring(call('SISMEMBER', P .. 'cancel', id)) ~= wish then
    return 0
  end
  local ukey, expected, holder
  if unique ~= '' then
    local kept = cjson.decode(unique)
    ukey, expected, holder = kept[1], kept[2], kept[3]
    if (call('HGET', P .. 'unique', ukey) or '') ~= expected then return 0 end
  end
  if source == 'L' then
    local lease = lease_of(key)
    local at = held_at(lease, id)
    if not at then return 0 end
    lease.held, lease.changed = sub(lease.held, 1, at - 1) .. sub(lease.held, at + 16), true
    call('SREM', P .. 'cancel', id)
  elseif source == 'A' then
    if call('HEXISTS', P .. 'completed', id) == 1 then return 0 end
    local list, part = stands(id, rec)
    if not list then return 0 end
    if list == 'ready' then
      call('ZADD', P .. 'gaps', ord_of(rec), ord_of(rec))
    else
      call('ZREM', P .. list .. ':' .. part, id)
      if list == 'suspects' and call('EXISTS', P .. 'suspects:' .. part) == 0 then
        call('ZREM', P .. 'suspected', part)
      elseif list == 'back' and call('EXISTS', P .. 'back:' .. part, P .. 'ready:' .. part) == 0 then
        call('ZREM', P .. 'waiting', part)
      end
    end
  elseif key ~= '' then
    call('ZREM', P .. key, id)
  end

  local target, score, new = ARGV[a + 5], ARGV[a + 6], ARGV[a + 2]
  local part, priority = part_of(rec), priority_of(rec)
  if target == 'D' then
    local first = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')
    if not first[2] or tonumber(score) < tonumber(first[2]) then woken = true end
    call('ZADD', P .. 'due', score, id)
  elseif target == 'E' then
    call('ZADD', P .. (is_lane(part) and 'canaries' or 'final'), score, id)
  elseif target == 'C' then
    complete(id, rec, score)
  elseif target == 'P' then
    if score ~= '' then
      call('ZADD', P .. score, now, id)
      call('SADD', P .. 'parked', score)
    end
  elseif target == 'T' then
    local ord = base
    base = base + 1
    new = sub(new, 1, 22) .. pack('>I6', ord) .. sub(new, 29)
    if is_lane(part) then
      call('ZADD', P .. 'back:' .. part, ord, id)
      woken = true
    else
      if run and (run.part ~= part or run.ord + #run.ids / 16 ~= ord) then flush_run() end
      run = run or { part = part, priority = priority, ord = ord, ids = '' }
      run.ids = run.ids .. id
    end
  elseif target == 'B' then
    call('ZADD', P .. 'back:' .. part, ord_of(rec), id)
    if not is_lane(part) then call('ZADD', P .. 'waiting', priority, part) end
    woken = true
  elseif target == 'S' then
    call('ZADD', P .. 'suspects:' .. part, score, id)
    call('ZADD', P .. 'suspected', priority, part)
    woken = true
  end
  if new ~= '' then call('HSET', P .. 'jobs', id, new) end
  local expiry = ARGV[a + 7]
  if expiry == '-' then
    call('ZREM', P .. 'expiry', id)
  elseif expiry ~= '' then
    call('ZADD', P .. 'expiry', expiry, id)
  end
  local sid = sid_of(rec)
  local out, into, total = string.match(ARGV[a + 8], '^(%d*):(%d*):(%d*)$')
  if out ~= '' then count(sid, out, -1) end
  if into ~= '' then count(sid, into, 1) end
  if total ~= '' then count(sid, total, 1) end
  if ukey then
    call('HSET', P .. 'unique', ukey, 'L' .. holder .. ':r' .. call('INCR', P .. 'turns'))
    call('ZREM', P .. 'unique_until', ukey)
  end
  return 1
end

local answer = {}
for a = 2, #ARGV, 11 do answer[#answer + 1] = one(a) end
flush_run()
for nonce, lease in pairs(leases) do
  if lease.changed then
    if lease.held == '' then
      call('HDEL', P .. 'leases', nonce)
      call('ZREM', P .. 'until', nonce)
    else
      call('HSET', P .. 'leases', nonce, lease.head .. lease.held)
    end
  end
end
flush_counts()
if woken then wake() end
return answer
