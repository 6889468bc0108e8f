-- Deletes ended jobs whose retention is over, and remembers their keys for as long as was promised.
-- KEYS[1] prefix · ARGV[1] queue and ARGV[2] batch of completed jobs that must still be its oldest, or '' '' for others
-- then 6 for each job: id · first bytes that its record must have · what is remembered in its place, or '' · until when, or ''
--   · state · unique: '' or JSON [key, expected, what is kept or '', until]
-- Output  how many were deleted; -1 when the batch is not the oldest any more
local queue, batch = ARGV[1], ARGV[2]
if queue ~= '' then
  if call('LINDEX', P .. 'done:' .. queue, 0) ~= batch then return -1 end
  call('LPOP', P .. 'done:' .. queue)
end
local gone = 0
for a = 3, #ARGV, 6 do
  local id, prefix = ARGV[a], ARGV[a + 1]
  local rec = call('HGET', P .. 'jobs', id)
  if rec and sub(rec, 1, #prefix) == prefix then
    if ARGV[a + 2] == '' then
      call('HDEL', P .. 'jobs', id)
    else
      call('HSET', P .. 'jobs', id, ARGV[a + 2])
      call('ZADD', P .. 'remembered', ARGV[a + 3], id)
    end
    call('HDEL', P .. 'completed', id)
    call('ZREM', P .. 'final', id)
    call('ZREM', P .. 'canaries', id)
    call('ZREM', P .. 'expiry', id)
    count(sid_of(rec), ARGV[a + 4], -1)
    bury(floor(seq_of(rec) / CHUNK), 1)
    if ARGV[a + 5] ~= '' then
      local u = cjson.decode(ARGV[a + 5])
      if call('HGET', P .. 'unique', u[1]) == u[2] then
        if u[3] == '' then
          call('HDEL', P .. 'unique', u[1])
        else
          call('HSET', P .. 'unique', u[1], u[3])
          call('ZADD', P .. 'unique_until', u[4], u[1])
        end
      end
    end
    gone = gone + 1
  end
end
if queue ~= '' then call('HINCRBY', P .. 'kept', queue, -gone) end
flush_counts()
return gone
