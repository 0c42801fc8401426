-- The steps of a store from one epoch to the next. Returns the epoch and the lineage that stand then.
--
-- KEYS  1 facts of the store
-- ARGV  the step, the lineage that was, then
--       behind  the last epoch that the caller knows: these are servers that missed it, and what was done meanwhile
--       begin   the lineage that is, the last epoch that the caller knows: the next one gets its number
--       join    the lineage that is, the number: from here on the epoch is joined by whoever comes
local facts = redis.call('HMGET', KEYS[1], 'epoch', 'lineage', 'begun')
local epoch, lineage, begun = tonumber(facts[1]), facts[2], facts[3]
local step, was = ARGV[1], ARGV[2]
if lineage == was then
  if step == 'behind' and epoch < tonumber(ARGV[3]) then
    lineage = 'behind'
    redis.call('HSET', KEYS[1], 'lineage', lineage)
  elseif step == 'begin' then
    local number, of = string.match(begun or '', '^(%d+) (.*)$')
    local known = math.max(epoch, tonumber(ARGV[4]))
    -- Hosts that end the same epoch begin the same one. Until it is joined it is none: others may begin one on other servers.
    if of ~= ARGV[3] or tonumber(number) <= known then
      number = string.format('%.0f', known + 1)
      redis.call('HSET', KEYS[1], 'begun', number .. ' ' .. ARGV[3])
    end
    epoch = tonumber(number)
  elseif step == 'join' and begun == ARGV[4] .. ' ' .. ARGV[3] then
    epoch, lineage = tonumber(ARGV[4]), ARGV[3]
    redis.call('HSET', KEYS[1], 'epoch', ARGV[4], 'lineage', lineage)
    redis.call('HDEL', KEYS[1], 'begun')
  end
end
return {epoch, lineage}
