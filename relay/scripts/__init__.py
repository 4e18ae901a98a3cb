"""Every Lua script of the relay as a typed function: its arguments, keys and answer in one place.

A function returns a `ScriptCall`, which `Connection.call` runs. The text is in relay/lua, in a
folder of the same name; docs/adr/0031 has the rules.
"""
