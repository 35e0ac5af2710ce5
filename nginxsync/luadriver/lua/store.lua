
-- The routes in the shared dictionary sluice_routes. A row says who serves a cluster in a scope: on a VIP, or "-", the baseline. Its
-- key is the scope and the cluster; further keys are a scope alone (what its tokens are made of) and "=" (of all rows).
--
--   seq           the sequence of the push in force; 0 for none
--   a:KEY b:KEY   two slots of a key. A push never writes the slot that is in force: setting "seq" switches all its rows at once
--   g:SEQ         of a push: generation, the push whose rows are the oldest that count, the push before, and its keys or "*"
--   pending       a push that is being made, or whose old rows are being removed: its sequence, and its keys or "*"
--   last          the last sequence that was given to a push
--   lock          who makes a push: process id and a number
--   epoch         the term and the name of the writer

local bxor, tohex, tobit = bit.bxor, bit.tohex, bit.tobit
local SLOTS = { "a:", "b:" }
local LOG = 64 -- pushes that a worker can be behind and forget row by row

-- read returns the body of a key as the push seq left it, or nil, what goes with it, and the slot that it is in. Rows of pushes
-- before floor do not count.
local function read(key, seq, floor)
    local best, body, more, where
    for _, slot in ipairs(SLOTS) do
        local value = shm:get(slot .. key)
        if value then
            local at, kind, beside, from = value:match("^(%d+) ([+-]) (%S+)\n()")
            at = tonumber(at)
            if at <= seq and at >= floor and (not best or at > best) then
                best, where = at, slot
                body, more = nil, nil
                if kind == "+" then
                    body, more = value:sub(from), beside
                end
            end
        end
    end
    return body, more, where
end

-- record is what a push wrote about itself: generation, floor, the push before, and its keys.
local function record(seq)
    local text = shm:get("g:" .. seq)
    if not text then
        return nil
    end
    local generation, floor, before, keys = text:match("^(%S+) (%d+) (%d+) ?(.*)$")
    return generation, tonumber(floor), tonumber(before), keys
end

-- in_force is the sequence of the push in force, its generation ("-" for none), and its floor.
local function in_force()
    while true do
        local seq = shm:get("seq") or 0
        if seq == 0 then
            return 0, "-", 0
        end
        local generation, floor = record(seq)
        if generation then
            return seq, generation, floor
        end -- taken away between two reads: a newer one is there now
    end
end

-- keys_of lists the keys that have a slot.
local function keys_of()
    local keys, seen = {}, {}
    for _, name in ipairs(shm:get_keys(0)) do
        local key = name:match("^[ab]:(.*)$")
        if key and not seen[key] then
            seen[key] = true
            keys[#keys + 1] = key
        end
    end
    return keys
end

-- pause lets the worker answer requests in between, where it can, when two milliseconds have passed since it did.
local paused = 0
local function pause(n)
    if n % 32 == 0 and clock() - paused > 0.002 and ngx.get_phase() == "content" then
        ngx.sleep(0)
        paused = clock()
    end
end

-- tidy removes the slots of keys that are not in force: those of a push that ended before it came into force, and those that a push
-- has replaced.
local function tidy(keys)
    local seq, _, floor = in_force()
    for n, key in ipairs(keys) do
        local body, _, where = read(key, seq, floor)
        for _, slot in ipairs(SLOTS) do
            if slot ~= where then
                shm:delete(slot .. key)
            end
        end
        if where and not body then
            shm:delete(where .. key) -- it said that the row is gone; last, since a row before it would count again
        end
        pause(n)
    end
end

-- recover ends what a push that ended early has left: it came into force, or it never will.
local function recover()
    local text = shm:get("pending")
    if not text then
        return
    end
    local seq, all, keys = text:match("^(%d+) (%*?)(.*)$")
    local list = {}
    if all == "*" then
        list = keys_of()
    else
        for key in keys:gmatch("[^\n]+") do
            list[#list + 1] = key
        end
    end
    tidy(list)
    if tonumber(seq) > (shm:get("seq") or 0) then
        shm:delete("g:" .. seq)
    end
    shm:delete("pending")
end

-- ended reports whether a process is there no more.
local function ended(pid)
    return ffi.C.sluice_kill(pid, 0) ~= 0 and ffi.errno() == ESRCH
end

-- lock makes this request the only one that pushes, or returns nothing. A lock of a process that has ended is taken away, by one
-- process only; the time limit is for a process id that another process has got since.
local function lock()
    local mine = ngx.worker.pid() .. ":" .. shm:incr("locks", 1, 0)
    if shm:add("lock", mine, 60) then
        return mine
    end
    local holder = shm:get("lock")
    local pid = holder and tonumber(holder:match("^%d+"))
    if pid and ended(pid) and shm:add("steal:" .. holder, 1, 60) then
        shm:delete("lock")
    end
    return shm:add("lock", mine, 60) and mine
end

local function unlock(mine)
    if shm:get("lock") == mine then
        shm:delete("lock")
    end
end

-- Digests are exclusive ors of the sums of rows, so that a change costs what changed. Each is a pair of 32-bit numbers.
local function sum(text)
    local a, b, c, d, e, f, g, h = ngx.md5_bin(text):byte(1, 8)
    return tobit(((a * 256 + b) * 256 + c) * 256 + d), tobit(((e * 256 + f) * 256 + g) * 256 + h)
end

local function hex(high, low)
    return tohex(high) .. tohex(low)
end

local function unhex(text)
    return tobit(tonumber(text:sub(1, 8), 16)), tobit(tonumber(text:sub(9, 16), 16))
end

-- identity says who serves a cluster of the baseline: its version or versions. Instances of a version that come and go leave it as
-- it is; those without a version are told apart by their rows.
local function identity(key, body)
    local found, versions = {}, {}
    for version in body:gmatch("%l %S+ %d+ %d+ (%S+) %S+\n") do
        if version == "-" then
            return key .. "\n" .. body
        end
        if not found[version] then
            found[version] = true
            versions[#versions + 1] = version
        end
    end
    table.sort(versions)
    return key .. " " .. table.concat(versions, " ")
end

-- births are when the instances of a body were new, by its lines: those of the body before keep theirs. "-" stands for long ago.
local function births(body, before, then_)
    local was, at = {}, {}
    if before then
        local times = then_ ~= "-" and then_:gmatch("[^,]+")
        for place, id in before:gmatch("%l (%S+ %d+) %d+ %S+ (%S+)\n") do
            was[place .. " " .. id] = times and times() or "0"
        end
    end
    local now, old = string.format("%.3f", clock()), true
    for place, id in body:gmatch("%l (%S+ %d+) %d+ %S+ (%S+)\n") do
        local time = was[place .. " " .. id] or now
        old = old and time == "0"
        at[#at + 1] = time
    end
    return old and "-" or table.concat(at, ",")
end
