-- Returns false from the script unless ARGV[1] is the token of the batch's present driver.
-- include shared/batch.lua
if get('driver') ~= ARGV[1] then return false end
