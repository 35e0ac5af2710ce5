-- The files of this directory are one program, in the order of their names in snippets.go: they share
-- these locals.
local config = CONFIG
local shm = ngx.shared.sluice_routes
local balancer = require "ngx.balancer"
local set_current_peer, set_more_tries = balancer.set_current_peer, balancer.set_more_tries
local get_last_failure = balancer.get_last_failure

local get_request = require "resty.core.base".get_request

-- Under names of their own: the tree's code may declare the same functions in another way.
local ffi = require "ffi"
ffi.cdef [[
    typedef struct { long seconds, nanoseconds; } sluice_time;
    int sluice_getppid(void) __asm__("getppid");
    int sluice_kill(int pid, int sig) __asm__("kill");
    int sluice_clock(int id, sluice_time *to) __asm__("clock_gettime");
    int sluice_compare(const void *one, const void *other, size_t bytes) __asm__("memcmp");
    void sluice_md5(const unsigned char *from, size_t bytes, unsigned char *to) __asm__("ngx_http_lua_ffi_md5_bin");
]]
local ESRCH = 3 -- on every Unix

-- clock is a time in seconds that no change of the machine's clock moves.
local time = ffi.new("sluice_time")
local CLOCK_MONOTONIC = 1
local function clock()
    ffi.C.sluice_clock(CLOCK_MONOTONIC, time)
    return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

-- ended reports whether a process is there no more.
local function ended(pid)
    return ffi.C.sluice_kill(pid, 0) ~= 0 and ffi.errno() == ESRCH
end

local routes = {}
local tokens_used = false -- the tree keeps something: see token.lua

