-- A write that changes nothing that anybody reads: a reply to a read says nothing about a full or read-only store.
-- KEYS[1] prefix · Output  now
call('HSET', P .. 'meta', 'probed', now)
return now
