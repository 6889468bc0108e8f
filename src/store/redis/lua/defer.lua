-- Sets when jobs are looked at again for being too late. KEYS[1] prefix · ARGV for each: id · when, or '' for never · Output how many
for a = 1, #ARGV, 2 do
  if ARGV[a + 1] == '' then
    call('ZREM', P .. 'expiry', ARGV[a])
  else
    call('ZADD', P .. 'expiry', 'XX', ARGV[a + 1], ARGV[a])
  end
end
return #ARGV / 2
