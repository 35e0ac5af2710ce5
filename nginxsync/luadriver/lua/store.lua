
-- The routes in the shared dictionary sluice_routes. A row says who serves a cluster in a scope: on a VIP, or "-", the baseline. Its
-- key is the scope and the cluster; further keys are a scope alone (what its tokens are made of) and "=" (of all rows).
--
--   seq           the sequence of the push in force; 0 for none
--   a:KEY b:KEY   two slots of a key, each with the sequence of the push that wrote it as its flags: "-" for a row that is gone, or
--                 when its instances were new (see births), a line break, and the body. A push never writes the slot that is in
--                 force: setting "seq" switches all its rows at once
--   g:SEQ         of a push: generation, the push whose rows are the oldest that count, the push before, and its keys or "*"
--   pending       a push that is being made, or whose old rows are being removed: its sequence, and its keys or "*"
--   last          the last sequence that was given to a push
--   lock          who makes a push: process id and a number
--   epoch         the term and the name of the writer

local bxor, bor, lshift, tohex, tobit = bit.bxor, bit.bor, bit.lshift, bit.tohex, bit.tobit
local SLOTS = { "a:", "b:" }
local LOG = 64 -- pushes that a worker can be behind and forget row by row

-- open_slot returns the body that a slot's value has and what goes with it, or nil for a row that is gone.
local function open_slot(value)
    if value == "-" then
        return nil
    end
    local from = value:find("\n", 1, true)
    return value:sub(from + 1), value:sub(1, from - 1)
end

-- read returns the body of a key as the push seq left it, or nil, what goes with it, and the slot that it is in. Rows of pushes
-- before floor do not count.
local function read(key, seq, floor)
    local a, of_a = shm:get("a:" .. key)
    local b, of_b = shm:get("b:" .. key)
    if a and (of_a > seq or of_a < floor) then
        a = nil
    end
    if b and (of_b > seq or of_b < floor) then
        b = nil
    end
    local value, where = a, "a:"
    if b and (not a or of_b > of_a) then
        value, where = b, "b:"
    end
    if not value then
        return nil
    end
    local body, more = open_slot(value)
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

-- Bytes that are summed or scanned are copied to scratch, so that they need not be a Lua string.
local digest, sum_of
do
    local scratch, scratch_size = ffi.new("uint8_t[1024]"), 1024
    local digest_of = ffi.new("uint8_t[16]")

    local function scratch_of(size)
        if size > scratch_size then
            scratch, scratch_size = ffi.new("uint8_t[?]", 2 * size), 2 * size
        end
        return scratch
    end

    local function number_at(i)
        return bor(lshift(digest_of[i], 24), lshift(digest_of[i + 1], 16), lshift(digest_of[i + 2], 8), digest_of[i + 3])
    end

    function digest(bytes, n)
        ffi.C.sluice_md5(bytes, n, digest_of)
        return number_at(0), number_at(4)
    end

    -- sum_of is the sum of two pieces of memory or strings with a byte between them.
    function sum_of(one, n, byte, two, m)
        local to = scratch_of(n + m + 1)
        ffi.copy(to, one, n)
        to[n] = byte
        ffi.copy(to + n + 1, two, m)
        return digest(to, n + m + 1)
    end
end

local LINE, SPACE = 10, 32

-- sum is the sum of a key and its body.
local function sum(key, body)
    return sum_of(key, #key, LINE, body, #body)
end

local function hex(high, low)
    return tohex(high) .. tohex(low)
end

-- one_version finds the version that all instances of a body are of, in its bytes from a place to a stop: where it begins, and its
-- length. It returns nothing for several versions, and for instances without one.
local function one_version(p, from, stop)
    local first, length = -1, 0
    while from < stop do
        for _ = 1, 4 do -- i ADDRESS PORT WEIGHT
            while from < stop and p[from] ~= SPACE do
                from = from + 1
            end
            from = from + 1
        end
        local begin = from
        while from < stop and p[from] ~= SPACE do
            from = from + 1
        end
        if first < 0 then
            first, length = begin, from - begin
        elseif from - begin ~= length then
            return nil
        end
        for i = 0, length - 1 do
            if p[first + i] ~= p[begin + i] then
                return nil
            end
        end
        while from < stop and p[from] ~= LINE do
            from = from + 1
        end
        from = from + 1
    end
    if first < 0 or length == 1 and p[first] == 45 then -- "-"
        return nil
    end
    return first, length
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

-- identity_sum is the sum of the identity of a row: its key of n bytes, and a body that is the bytes of p from a place to a stop.
local function identity_sum(key, n, p, from, stop)
    local first, length = one_version(p, from, stop)
    if first then
        return sum_of(key, n, SPACE, p + first, length)
    end
    local text = identity(ffi.string(key, n), ffi.string(p + from, stop - from))
    return digest(text, #text)
end

-- births are when the instances of a body were new, by its lines: those of the body before keep theirs. Nothing stands for long
-- ago.
local function births(body, before, then_)
    if body == before then
        return then_
    end
    local now = string.format("%.3f", clock())
    if not before then
        local _, lines = body:gsub("\n", "")
        return lines > 0 and now .. ("," .. now):rep(lines - 1) or ""
    end
    local was, at = {}, {}
    local times = then_ ~= "" and then_:gmatch("[^,]+")
    for place, id in before:gmatch("%l (%S+ %d+) %d+ %S+ (%S+)\n") do
        was[place .. " " .. id] = times and times() or "0"
    end
    local old = true
    for place, id in body:gmatch("%l (%S+ %d+) %d+ %S+ (%S+)\n") do
        local time = was[place .. " " .. id] or now
        old = old and time == "0"
        at[#at + 1] = time
    end
    return old and "" or table.concat(at, ",")
end
