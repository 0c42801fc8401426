-- Returns the name at which the next page starts, or nothing, then name, version and bytes of each value of this page.
--
-- KEYS  1 the names of values   2 values   3 their versions
-- ARGV  the first name and the end, as ZRANGEBYLEX takes them; entries; bytes after which the page ends
local limit, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local names = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, limit + 1)
local page, bytes = {''}, 0
for i, name in ipairs(names) do
  if i > limit or bytes >= bytes_max then
    page[1] = name
    break
  end
  local value = redis.call('HGET', KEYS[2], name)
  bytes = bytes + #name + #value
  page[#page + 1] = name
  page[#page + 1] = redis.call('HGET', KEYS[3], name)
  page[#page + 1] = value
end
return page
