-- Begins a new epoch over the servers that are there now, unless somebody did before. Returns the epoch.
--
-- KEYS  1 facts of the store
-- ARGV  the lineage that was, the lineage that is, the last epoch that the caller knows
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch'))
if redis.call('HGET', KEYS[1], 'lineage') ~= ARGV[1] then return epoch end
epoch = math.max(epoch, tonumber(ARGV[3])) + 1
redis.call('HSET', KEYS[1], 'lineage', ARGV[2], 'epoch', string.format('%.0f', epoch))
return epoch
