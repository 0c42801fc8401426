-- Judges and applies one commit, whole or not at all; or applies one again that was judged before, and that Redis has lost since.
--
-- KEYS  1 facts of the space   2 values   3 their versions   4 the names of values   5 fencing tokens   6 events
--       7 due entries          8 the call (the facts again where there is none)
-- ARGV  epoch, the caller's time, the space, the channel, milliseconds that a call is kept; then `judge`, or `restore` (or `skip`,
--       where those before it are lost for good) with the commit's version, its last event's number and its time; then each list
--       with its length before it: the call (digest, answer), fences (key, token), expected values (key, version), raised fences
--       (key, token), values (key, bytes), removed values (key), due entries (name, time or nothing), events (bytes)
local at_argument = 0
local function take()
  at_argument = at_argument + 1
  return ARGV[at_argument]
end
local function each(act)
  for _ = 1, tonumber(take()) do
    local refusal = act()
    if refusal then return refusal end
  end
end

local epoch, callers_ms, space, channel, kept_ms = tonumber(take()), tonumber(take()), take(), take(), take()
local facts = redis.call('HMGET', KEYS[1], 'version', 'seq', 'at', 'epoch', 'judged', 'undone')
local stands = {version = tonumber(facts[1] or '0'), seq = tonumber(facts[2] or '0'), at = tonumber(facts[3] or '0')}
stands.epoch = tonumber(facts[4] or '0')
-- Whoever is of an earlier epoch does not know what was lost.
if epoch < stands.epoch then return {'epoch', stands.epoch} end

local again, undone = nil, 0
local mode = take()
if mode == 'judge' then
  -- While lost commits are done again, and from then on, whoever is of the epoch that ended has no say.
  if epoch < tonumber(facts[5] or '0') then return {'epoch', stands.epoch} end
else
  again = {version = tonumber(take()), seq = tonumber(take()), at = tonumber(take())}
  if again.version <= stands.version then
    if epoch == stands.epoch then return {'there', stands.version} end
    -- The first of an epoch that began elsewhere: what this server did on its own since then does not count.
    undone = stands.version - again.version + 1
  elseif mode == 'restore' and again.version > stands.version + 1 then
    return {'gap', stands.version}
  end
end

-- Returns whether a call was undone that is recorded of this commit: `undone` has, for each time, the epoch that began instead and
-- the first commit that gave way.
local function is_undone(record)
  local epoch, version = tonumber(string.sub(record, 33, 48)), tonumber(string.sub(record, 49, 64))
  for began, first in string.gmatch(facts[6] or '', '(%d+):(%d+)') do
    if epoch < tonumber(began) and version >= tonumber(first) then return true end
  end
  return false
end

local call = nil
if take() == '1' then
  call = {digest = take(), answer = take()}
  local before = not again and redis.call('GET', KEYS[8])
  if before and not is_undone(before) then
    if string.sub(before, 1, 32) == call.digest then
      -- A write, so that whoever waits for replicas waits for what was done then, too.
      redis.call('PEXPIRE', KEYS[8], kept_ms)
      return {'replayed', string.sub(before, 65)}
    end
    return {'reused'}
  end
end

local refusal = each(function()
  local key, token = take(), take()
  if not again and redis.call('HGET', KEYS[5], key) ~= token then return {'fenced', key} end
end) or each(function()
  local key, version = take(), take()
  if not again and (redis.call('HGET', KEYS[3], key) or '') ~= version then return {'stale', key} end
end)
if refusal then return refusal end
local raised = {}
refusal = each(function()
  local key, token = take(), take()
  local before = redis.call('HGET', KEYS[5], key)
  -- A lower token would give the right back to one who lost it. Tokens are digits of one length.
  if not before or before <= token then
    raised[#raised + 1] = {key, token}
  elseif not again then
    return {'fenced', key}
  end
end)
if refusal then return refusal end

-- Nothing speaks against it: from here on everything is done.
local version, at
if again then
  version, at = again.version, again.at
else
  local clock = redis.call('TIME')
  version, at = stands.version + 1, tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  at = math.max(at, callers_ms, stands.at)
end
local function whole(number) return string.format('%.0f', number) end
redis.call('HSET', KEYS[1], 'version', whole(version), 'at', whole(math.max(at, stands.at)))
for _, fence in ipairs(raised) do redis.call('HSET', KEYS[5], fence[1], fence[2]) end
each(function()
  local key, bytes = take(), take()
  redis.call('HSET', KEYS[2], key, bytes)
  redis.call('HSET', KEYS[3], key, whole(version))
  redis.call('ZADD', KEYS[4], 0, key)
end)
each(function()
  local key = take()
  redis.call('HDEL', KEYS[2], key)
  redis.call('HDEL', KEYS[3], key)
  redis.call('ZREM', KEYS[4], key)
end)

local first = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')[2]
local is_earlier = false
each(function()
  local name, due = take(), take()
  if due == '' then
    redis.call('ZREM', KEYS[7], name)
  else
    redis.call('ZADD', KEYS[7], due, name)
    if not first or tonumber(due) <= tonumber(first) then is_earlier = true end
  end
end)

local events = tonumber(ARGV[at_argument + 1])
local seq = again and again.seq or stands.seq + events
local next_seq = seq - events
redis.call('HSET', KEYS[1], 'seq', whole(seq))
if undone > 0 then
  redis.call('HSET', KEYS[1], 'undone', (facts[6] or '') .. whole(epoch) .. ':' .. whole(version) .. ' ')
end
if undone > 0 and redis.call('EXISTS', KEYS[6]) == 1 then
  for _, event in ipairs(redis.call('XRANGE', KEYS[6], whole(next_seq + 1) .. '-0', '+')) do
    redis.call('XDEL', KEYS[6], event[1])
  end
  redis.call('XSETID', KEYS[6], whole(next_seq) .. '-0')
end
if epoch > stands.epoch then
  -- Where the log stood when the epoch began: what readers saw beyond that is lost.
  redis.call('HSET', KEYS[1], 'epoch', whole(epoch), 'epoch:' .. whole(epoch), whole(math.min(stands.seq, next_seq)))
end
each(function()
  next_seq = next_seq + 1
  redis.call('XADD', KEYS[6], whole(next_seq) .. '-0', 'e', take(), 't', whole(at), 'p', whole(epoch))
end)
if call then redis.call('SET', KEYS[8], call.digest .. string.format('%016.0f%016.0f', epoch, version) .. call.answer, 'PX', kept_ms) end
if events > 0 then redis.call('PUBLISH', channel, space) end
if is_earlier then redis.call('PUBLISH', channel, 'due') end
return {'done', version, seq, whole(at), undone}
