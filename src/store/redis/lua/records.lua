-- Lists records by key. KEYS[1] prefix · ARGV[1] space [2] after which key, or '' [3] most · ARGV[4…] or these keys only
-- Output  {now, key, record, …}
local keys = {}
if #ARGV > 3 then
  for i = 4, #ARGV do keys[#keys + 1] = ARGV[i] end
else
  keys = call('ZRANGEBYLEX', P .. 'keys:' .. ARGV[1], ARGV[2] == '' and '-' or '(' .. ARGV[2], '+', 'LIMIT', 0, ARGV[3])
end
local answer = { now }
for _, key in ipairs(keys) do
  local there = call('HGET', P .. 'records:' .. ARGV[1], key)
  if there then
    local ends = unpk('>I6', there, 13)
    if ends == 0 or ends > now then
      answer[#answer + 1] = key
      answer[#answer + 1] = there
    end
  end
end
return answer
