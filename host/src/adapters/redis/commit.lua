-- Judges and applies one commit, whole or not at all.
--
-- KEYS  1 facts of the store   2 facts of the space   3 values   4 their versions   5 the names of values
--       6 fencing tokens       7 events               8 due entries by name         9 due entries of all   10 the call
-- ARGV  epoch, the caller's time, the space, the channel, milliseconds that a call is kept; then each list with its length
--       before it: the call (digest, answer), fences (key, token), expected values (key, version), raised fences (key, token),
--       values (key, bytes), removed values (key), due entries (name, time or nothing), events (bytes)
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

local epoch, callers_ms, space, channel, kept_ms = take(), tonumber(take()), take(), take(), take()
local stands = redis.call('HGET', KEYS[1], 'epoch')
if stands ~= epoch then return {'epoch', stands or ''} end

local call = nil
if take() == '1' then
  call = {digest = take(), answer = take()}
  local before = redis.call('GET', KEYS[10])
  if before then
    if string.sub(before, 1, 32) == call.digest then return {'replayed', string.sub(before, 33)} end
    return {'reused'}
  end
end

local refusal = each(function()
  local key, token = take(), take()
  if redis.call('HGET', KEYS[6], key) ~= token then return {'fenced', key} end
end) or each(function()
  local key, version = take(), take()
  if (redis.call('HGET', KEYS[4], key) or '') ~= version then return {'stale', key} end
end)
if refusal then return refusal end
local raised = {}
refusal = each(function()
  local key, token = take(), take()
  local before = redis.call('HGET', KEYS[6], key)
  -- A lower token would give the right back to one who lost it. Tokens are digits of one length.
  if before and before > token then return {'fenced', key} end
  raised[#raised + 1] = {key, token}
end)
if refusal then return refusal end

-- Nothing speaks against it: from here on everything is done.
local clock = redis.call('TIME')
local at = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
at = math.max(at, callers_ms, tonumber(redis.call('HGET', KEYS[2], 'at') or '0'))
local at_text = string.format('%.0f', at)
local version = redis.call('HINCRBY', KEYS[2], 'version', 1)
redis.call('HSET', KEYS[2], 'at', at_text)
for _, fence in ipairs(raised) do redis.call('HSET', KEYS[6], fence[1], fence[2]) end
each(function()
  local key, bytes = take(), take()
  redis.call('HSET', KEYS[3], key, bytes)
  redis.call('HSET', KEYS[4], key, version)
  redis.call('ZADD', KEYS[5], 0, key)
end)
each(function()
  local key = take()
  redis.call('HDEL', KEYS[3], key)
  redis.call('HDEL', KEYS[4], key)
  redis.call('ZREM', KEYS[5], key)
end)

local first = redis.call('ZRANGE', KEYS[9], 0, 0, 'WITHSCORES')[2]
local is_earlier = false
each(function()
  local name, due = take(), take()
  local member = space .. ':' .. name
  if due == '' then
    redis.call('HDEL', KEYS[8], name)
    redis.call('ZREM', KEYS[9], member)
  else
    redis.call('HSET', KEYS[8], name, due)
    redis.call('ZADD', KEYS[9], due, member)
    if not first or tonumber(due) <= tonumber(first) then is_earlier = true end
  end
end)

local events = tonumber(ARGV[at_argument + 1])
local seq = redis.call('HINCRBY', KEYS[2], 'seq', events)
local next_seq = seq - events
each(function()
  next_seq = next_seq + 1
  redis.call('XADD', KEYS[7], string.format('%.0f-0', next_seq), 'e', take(), 't', at_text, 'p', epoch)
end)
if call then redis.call('SET', KEYS[10], call.digest .. call.answer, 'PX', kept_ms) end
if events > 0 then redis.call('PUBLISH', channel, space) end
if is_earlier then redis.call('PUBLISH', channel, 'due') end
return {'done', version, seq, at_text}
