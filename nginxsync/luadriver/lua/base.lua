-- The files of this directory are one program, in the order of their names in snippets.go: they share
-- these locals.
local config = CONFIG
local shm = ngx.shared.sluice_routes
local balancer = require "ngx.balancer"
local set_current_peer, set_more_tries = balancer.set_current_peer, balancer.set_more_tries
local get_last_failure = balancer.get_last_failure

local ffi = require "ffi"
ffi.cdef "int kill(int pid, int sig);"
local ESRCH = 3 -- on every Unix

local routes = {}

