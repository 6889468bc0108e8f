-- What several scripts share. Layouts are those of `record.rs`; positions in Lua count from 1.
local P = KEYS[1]
local call, sub, byte, find, floor = redis.call, string.sub, string.byte, string.find, math.floor
local pack, unpk = struct.pack, struct.unpack

local clock = call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)

local counts = {}
local function count(sid, code, by)
  local field = sid .. ':' .. code
  counts[field] = (counts[field] or 0) + by
end
local function flush_counts()
  for field, by in pairs(counts) do
    if by ~= 0 then call('HINCRBY', P .. 'c', field, by) end
  end
end

local function wake() call('PUBLISH', P .. 'wake', '') end

-- Operators set something: the revision rises, and workers read it again.
local function controls_changed()
  call('HINCRBY', P .. 'meta', 'control', 1)
  wake()
end

local function is_cold(rec) return byte(rec, 15) % 2 == 1 end
local function sid_of(rec) return byte(rec, 16) * 256 + byte(rec, 17) end
local function seq_of(rec) return (unpk('>I6', rec, 1)) + (unpk('>I2', rec, 13)) end
local function priority_of(rec) return byte(rec, 18) - 100 end
local function ord_of(rec)
  if is_cold(rec) then return (unpk('>I6', rec, 23)) end
  return seq_of(rec)
end

local queues = {}
local function part_of(rec)
  local sid = sid_of(rec)
  local queue = queues[sid]
  if not queue then
    queue = call('HGET', P .. 'queue', sid) or '' -- a damaged record names none
    queues[sid] = queue
  end
  if queue == '~canary' then -- a lane for each worker; the name comes first of what its JSON tells, and nothing before it is as free
    return '~' .. (string.match(rec, '"canary":"([a-z0-9._-]+)"') or '') .. ':0'
  end
  return queue .. ':' .. priority_of(rec)
end
-- The lane of a worker's canaries is a sorted set, `back:…`, and nothing else: what is too late leaves no gap in it, and claims of
-- the tier's jobs do not come across it.
local function is_lane(part) return byte(part) == 126 end

-- Which list an available job stands in; nil when it was claimed. Entries of a ready list are consumed in ascending
-- order of their places, so one look at its head tells.
local function stands(id, rec)
  local part = part_of(rec)
  if call('ZSCORE', P .. 'back:' .. part, id) then return 'back', part end
  if call('ZSCORE', P .. 'suspects:' .. part, id) then return 'suspects', part end
  local head = call('LINDEX', P .. 'ready:' .. part, 0)
  local ord = ord_of(rec)
  if head and ord >= unpk('>I6', head, 1) and not call('ZSCORE', P .. 'gaps', ord) then
    return 'ready', part
  end
end

-- Appends ids to the log, which lists jobs by the order of their insertion, a chunk a key.
local function log(seq, ids)
  local at = 1
  while at <= #ids do
    local chunk, offset = floor(seq / CHUNK), seq % CHUNK
    local n = math.min(CHUNK - offset, (#ids - at + 1) / 16)
    local key = P .. 'log:' .. chunk
    call('APPEND', key, sub(ids, at, at + n * 16 - 1))
    if offset + n == CHUNK then call('SET', key, call('GET', key)) end -- appending left it twice as large as it is
    if offset == 0 then call('ZADD', P .. 'chunks', chunk, chunk) end
    at, seq = at + n * 16, seq + n
  end
end

-- Entries of a chunk that stand for nothing any more; a chunk of such is gone.
local function bury(chunk, n)
  if call('HINCRBY', P .. 'buried', chunk, n) >= CHUNK then
    call('DEL', P .. 'log:' .. chunk)
    call('ZREM', P .. 'chunks', chunk)
    call('HDEL', P .. 'buried', chunk)
  end
end

-- Trims the oldest batch of completed jobs of a queue; returns how many, or nil when it holds keys to remember, which
-- is the client's work.
local function trim_plain(queue)
  local batch = call('LPOP', P .. 'done:' .. queue)
  if not batch then return 0 end
  if byte(batch, 1) == 1 then
    call('LPUSH', P .. 'done:' .. queue, batch)
    return nil
  end
  local streams, at = byte(batch, 8), 9
  for _ = 1, streams do
    local sid, n
    sid, n, at = unpk('>I2I2', batch, at)
    count(sid, 5, -n)
  end
  local chunks
  chunks, at = unpk('>I2', batch, at)
  for _ = 1, chunks do
    local chunk, n
    chunk, n, at = unpk('>I6I2', batch, at)
    bury(chunk, n)
  end
  local ids = {}
  for i = at, #batch, 16 do ids[#ids + 1] = sub(batch, i, i + 15) end
  call('HDEL', P .. 'jobs', unpack(ids))
  call('HDEL', P .. 'completed', unpack(ids))
  call('HINCRBY', P .. 'kept', queue, -#ids)
  return #ids
end
