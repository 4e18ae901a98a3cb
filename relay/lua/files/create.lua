#!lua
-- KEYS file index stored sizes sums; ARGV id name json ttl_s counted_bytes
-- Creates a file's record, unless it exists. Returns its creation time (unix seconds).
-- include shared/file.lua
local id, name, json, ttl_s, counted_bytes = unpack(ARGV)
return create_file(KEYS, id, name, json, tonumber(ttl_s), tonumber(counted_bytes))
