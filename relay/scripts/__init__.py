"""Lua scripts that several modules of the relay call, as typed functions.

A function returns a `ScriptCall`, which `Connection.call` runs. A script that one module calls has
its function in that module. The texts are in relay/lua; docs/adr/0031 has the rules.
"""
