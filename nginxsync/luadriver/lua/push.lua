
-- A push: from a text to the dictionary. The text is what nginxsync.Delta sends, or the state file:
--
--   sluice-delta 2 EPOCH WRITER FROM TO delta|full        or   sluice-routes 2 GENERATION SUM
--   r SCOPE CLUSTER SUM BYTES                                  a row; its body of so many bytes follows
--   d SCOPE CLUSTER                                            a row that goes
--   end ROWS

-- A row of a text, by offsets into it: where its scope begins, the lengths of the scope and of the key, where its body begins (-1 for
-- a row that goes) and its length, its sum, and the slot that has the row of before, 0 for none. A total is the digest of some rows.
ffi.cdef [[
    typedef struct { int at, scope, key, body, size, high, low, was; } sluice_row;
    typedef struct { int count, high, low, was; } sluice_total;
]]

local HEX = ffi.new("int8_t[256]")
ffi.fill(HEX, 256, -1)
for i = 0, 15 do
    HEX[("0123456789abcdef"):byte(i + 1)] = i
end

-- word_end is the first place at or after i whose byte is not of a word: a space or less. It is stop when there is none.
local function word_end(p, i, stop)
    while i < stop and p[i] > SPACE do
        i = i + 1
    end
    return i
end

-- hex_at reads eight digits, or returns nil.
local function hex_at(p, i)
    local n = 0
    for k = i, i + 7 do
        local digit = HEX[p[k]]
        if digit < 0 then
            return nil
        end
        n = bor(lshift(n, 4), digit)
    end
    return n
end

-- head_of reads the line of a row at byte i into row. It returns where the row ends, or nil.
local function head_of(p, i, stop, row)
    local kind = p[i]
    if p[i + 1] ~= SPACE then
        return nil
    end
    local scope = word_end(p, i + 2, stop)
    local cluster = word_end(p, scope + 1, stop)
    if scope == i + 2 or cluster <= scope + 1 or cluster >= stop or p[scope] ~= SPACE then
        return nil
    end
    row.at, row.scope, row.key, row.body, row.size = i + 2, scope - i - 2, cluster - i - 2, -1, 0
    if kind == 100 then -- d
        return p[cluster] == LINE and cluster + 1 or nil
    end
    if kind ~= 114 or p[cluster] ~= SPACE or cluster + 20 > stop or p[cluster + 17] ~= SPACE then -- r
        return nil
    end
    local high, low = hex_at(p, cluster + 1), hex_at(p, cluster + 9)
    local line, size = cluster + 18, 0
    while line < stop and p[line] >= 48 and p[line] <= 57 and size < 1e8 do
        size, line = size * 10 + p[line] - 48, line + 1
    end
    if not high or not low or line == cluster + 18 or p[line] ~= LINE or line + 1 + size > stop then
        return nil
    end
    row.high, row.low, row.body, row.size = high, low, line + 1, size
    return line + 1 + size
end

-- room is how many bytes of the dictionary an entry takes: Nginx gives out powers of two up to half a page, then pages.
local function room(key, value)
    local bytes, power = 80 + key + value, 64
    if bytes > 2048 then
        return math.ceil(bytes / 4096) * 4096
    end
    while power < bytes do
        power = power * 2
    end
    return power
end

-- rows_of reads the rows of a text from a byte on. It returns a table with the text, the rows as list, how many there are as n, and
-- the bytes that they take in the dictionary as need; or nil and what is wrong.
local function rows_of(text, at)
    local p, i, stop = ffi.cast("const uint8_t *", text), at - 1, #text
    local count = text:sub(-20):match("end (%d+)\n$")
    local n = count and tonumber(count) or stop
    if n > (stop - i) / 6 then -- a row has six bytes or more
        return nil, "the end is missing: the text is cut short"
    end
    local list, need, read = ffi.new("sluice_row[?]", n + 1), 0, 0
    stop = stop - #count - 5
    while i < stop and read < n do
        local row = list[read]
        local next_ = head_of(p, i, stop, row)
        if not next_ then
            return nil, "byte " .. i + 1 .. ": want a row or the end: the text is cut short or changed"
        end
        if row.body >= 0 then
            local high, low = sum_of(p + row.at, row.key, LINE, p + row.body, row.size)
            if high ~= row.high or low ~= row.low then
                return nil, "row " .. read + 1 .. ", of " .. ffi.string(p + row.at, row.key) .. ": its sum is not " ..
                    hex(row.high, row.low)
            end
        end
        need, read, i = need + room(row.key + 2, row.size + 1) + 16, read + 1, next_
        pause(read)
    end
    if i ~= stop or read ~= n then
        return nil, "byte " .. i + 1 .. ": want " .. n .. " rows, there are " .. read .. ": the text is cut short or changed"
    end
    return { text = text, list = list, n = n, need = need }
end

-- crash ends the worker in the middle of a push, for tests: at the step that the file config.crash names.
local function crash(step)
    local file = config.crash and io.open(config.crash)
    if not file then
        return
    end
    local named = file:read("*a")
    file:close()
    if named == step then
        ffi.C.sluice_kill(ngx.worker.pid(), 9)
    end
end

-- only finds the value of a key while no push is pending: then a key has one slot at most. It returns the slot, what get_slot returns,
-- or 0.
local function only(key, n)
    local value, size, of = get_slot(A, key, n)
    if value then
        return A, value, size, of
    end
    value, size, of = get_slot(B, key, n)
    return value and B or 0, value, size, of
end

-- total_of is the digest that a key has, of so many rows.
local function total_of(key)
    local was, value, size = only(key, #key)
    if was == 0 then
        return 0, 0, 0, 0
    end
    local count, high, low = ffi.string(value, size):match("^\n(%d+) (%x%x%x%x%x%x%x%x)(%x%x%x%x%x%x%x%x)$")
    return was, tonumber(count), tobit(tonumber(high, 16)), tobit(tonumber(low, 16))
end

local function turn(total, n, high, low)
    total.count, total.high, total.low = total.count + n, bxor(total.high, high), bxor(total.low, low)
end

-- keys_of_rows are the keys that a push writes, one a line, or "*" where they are many.
local function keys_of_rows(rows, full)
    if full or rows.n > 128 then
        return "*"
    end
    local p, keys, seen = ffi.cast("const uint8_t *", rows.text), { "=" }, {}
    for i = 0, rows.n - 1 do
        local row = rows.list[i]
        local scope = ffi.string(p + row.at, row.scope)
        if not seen[scope] then
            seen[scope] = true
            keys[#keys + 1] = scope
        end
        keys[#keys + 1] = ffi.string(p + row.at, row.key)
    end
    return table.concat(keys, "\n")
end

local GONE = "-"

-- has_body reports whether a slot's value of so many bytes has the body.
local function has_body(value, size, body, bytes)
    local from = 0
    while from < size and value[from] ~= LINE do
        from = from + 1
    end
    return size - from - 1 == bytes and ffi.C.sluice_compare(value + from + 1, body, bytes) == 0
end

-- write_rows writes the rows of a push into the slots that are not in force, and what they lead to. It returns the totals, by their
-- keys, those that it wrote, and of how many rows it has found one of before. Without room it returns nil, with a key that comes
-- twice nil and the key.
local function write_rows(rows, seq, first, full)
    local p, middle, seen = ffi.cast("const uint8_t *", rows.text), math.floor((rows.n - 1) / 2), 0
    local sums, keys, index = ffi.new("sluice_total[?]", rows.n + 1), {}, {}
    local function place(key)
        local n, total = #keys, sums[#keys]
        if not first then
            local was, count, high, low = total_of(key)
            total.was = was
            if not full then
                total.count, total.high, total.low = count, high, low
            end
        end
        keys[n + 1], index[key] = key, n
        return n
    end
    place("=")
    for i = 0, rows.n - 1 do
        local row = rows.list[i]
        local scope = ffi.string(p + row.at, row.scope)
        local total = sums[index[scope] or place(scope)]
        local key, n, of_baseline = p + row.at, row.key, scope == "-"
        local value, size, of = nil, 0, 0
        if not first then
            row.was, value, size, of = only(key, n)
            if row.was ~= 0 and of == seq then
                return nil, ffi.string(key, n)
            end
        end
        local body, bytes = p + row.body, row.size
        local same = value ~= nil and row.body >= 0 and has_body(value, size, body, bytes)
        local before, since
        if value ~= nil and not same or value ~= nil and not full then
            before, since = open_slot(ffi.string(value, size))
        end
        if value ~= nil and not full then
            local high, low = sum_of(key, n, LINE, before, #before)
            turn(sums[0], -1, high, low)
            if of_baseline then
                high, low = identity_sum(key, n, ffi.cast("const uint8_t *", before), 0, #before)
            end
            turn(total, -1, high, low)
        end
        local ok, err = true, nil
        if row.body >= 0 then
            seen = seen + (value ~= nil and 1 or 0)
            local high, low = row.high, row.low
            turn(sums[0], 1, high, low)
            if of_baseline then
                high, low = identity_sum(key, n, p, row.body, row.body + bytes)
            end
            turn(total, 1, high, low)
            if first then
                value, size = body - 1, bytes + 1 -- the line break before it says that the instances are old
            elseif not same then
                body = ffi.string(body, bytes)
                value = births(body, before, since) .. "\n" .. body
                size = #value
            end
            ok, err = put_slot(row.was == A and B or A, key, n, value, size, seq, row.was == 0)
        elseif value ~= nil and not full then
            ok = put_slot(row.was == A and B or A, key, n, GONE, #GONE, seq)
        end
        if not ok then
            return nil, err == "exists" and ffi.string(key, n) or nil
        end
        if i == middle then
            crash("rows")
        end
        pause(i)
    end
    for i, key in ipairs(keys) do
        local total = sums[i - 1]
        local value = (total.count > 0 or i == 1) and "\n" .. total.count .. " " .. hex(total.high, total.low) or GONE
        if (total.was ~= 0 or value ~= GONE) and
            not put_slot(total.was == A and B or A, key, #key, value, #value, seq, total.was == 0) then
            return nil
        end
        pause(i)
    end
    return sums, keys, seen
end

-- tidy_rows removes the slots that a push has replaced, where each row of before has a successor.
local function tidy_rows(rows, sums, keys)
    local p = ffi.cast("const uint8_t *", rows.text)
    for i = 0, rows.n - 1 do
        local row = rows.list[i]
        if row.was ~= 0 then
            delete_slot(row.was, p + row.at, row.key)
        end
        pause(i)
    end
    for i, key in ipairs(keys) do
        if sums[i - 1].was ~= 0 then
            delete_slot(sums[i - 1].was, key, #key)
        end
        pause(i)
    end
end

-- need_of is how many bytes of the dictionary rows take, with those of their scopes.
local function need_of(rows)
    local p, need, seen = ffi.cast("const uint8_t *", rows.text), rows.need, {}
    for i = 0, rows.n - 1 do
        local scope = ffi.string(p + rows.list[i].at, rows.list[i].scope)
        need = need + (seen[scope] and 0 or room(#scope + 2, 24) + 16)
        seen[scope] = true
    end
    return string.format("%d", need)
end

-- write puts the rows of a push into the dictionary and brings them into force, whole. On an error it returns a status and a text,
-- and the routes in force stay.
local function write(rows, full, to)
    local before, _, floor = in_force()
    local have = shm:free_space()
    if rows.need > have + 65536 then
        return 507, need_of(rows) .. " " .. have
    end
    local seq, keys = shm:incr("last", 1, 0), keys_of_rows(rows, full)
    local ok = shm:safe_set("pending", seq .. " " .. keys)
    crash("pending")
    local _, count = total_of("=")
    local sums, names, seen
    if ok then
        sums, names, seen = write_rows(rows, seq, before == 0, full)
    end
    if not sums and names then
        recover()
        return 400, "the row of " .. names .. " comes twice"
    elseif sums and hex(sums[0].high, sums[0].low) ~= to:sub(-16) then
        recover()
        return 400, "the rows lead to the digest " .. hex(sums[0].high, sums[0].low) .. ", not to that of " .. to
    end
    crash("written")
    ok = sums and shm:safe_set("g:" .. seq, to .. " " .. (full and seq or floor) .. " " .. before .. " " .. keys)
    if not ok then
        recover()
        return 507, need_of(rows) .. " " .. have
    end
    crash("record")
    shm:set("seq", seq)
    crash("switched")
    if full and seen == count then
        tidy_rows(rows, sums, names)
        shm:delete("pending")
    else
        recover()
    end
    for n = math.max(before - LOG, 1), seq - LOG do
        shm:delete("g:" .. n)
    end
    return 200, to
end

-- apply is a push of a text that was read. It returns a status and a text.
local function apply(rows, epoch, writer, from, to, full)
    local term, owner = (shm:get("epoch") or "0 -"):match("^(%d+) (%S+)$")
    term = tonumber(term)
    if epoch < term or epoch == term and writer ~= owner then
        return 409, "fenced: the writer of term " .. term .. " is " .. owner
    end
    recover()
    local _, generation = in_force()
    local status, message = 200, to
    if generation ~= to then
        if generation ~= "-" and to:sub(1, 20) <= generation:sub(1, 20) then
            return 409, "conflict: " .. generation .. " is in force"
        elseif not full and generation ~= from then
            return 409, "gap: " .. generation .. " is in force"
        end
        status, message = write(rows, full, to)
        if status ~= 200 then
            return status, message
        end
    end
    if epoch > term then
        shm:set("epoch", string.format("%d %s", epoch, writer))
    end
    return status, message
end

-- old_rows reads a state file of version 1. It returns the rows and the generation, or nil and what is wrong.
local function old_rows(text)
    local number, at = text:match("^sluice%-routes 1 (%d+)%-%x+\n()")
    if not number then
        return nil, "want a state file of version 1 or 2"
    end
    local out, rows, count, key, lines = {}, 0, 0, nil, nil
    local function close()
        if key then
            local body = table.concat(lines)
            out[#out + 1] = string.format("r %s %s %d\n%s", key, hex(sum(key, body)), #body, body)
            rows = rows + 1
        end
    end
    for line, stop in text:sub(at):gmatch("([^\n]*\n)()") do
        local cluster = line:match("^b (%S+)\n$")
        local vip, name = line:match("^v (%S+) (%S+)\n$")
        if cluster or vip then
            close()
            key, lines = (vip or "-") .. " " .. (name or cluster), {}
        elseif key and line:find("^[is] %S+ %d+ %d+ %S+ %S+\n$") then
            lines[#lines + 1] = line
        elseif line == "end " .. count .. "\n" and stop == #text - at + 2 then
            close()
            out[#out + 1] = "end " .. rows .. "\n"
            return rows_of(table.concat(out), 1), number
        else
            return nil, "bad row: " .. line
        end
        count = count + 1
    end
    return nil, "the last line is missing, the text is cut short"
end

-- file_rows reads a state file: rows and generation, or nil and what is wrong.
local function file_rows(text)
    local to, check, at = text:match("^sluice%-routes 2 (%d+%-%x+) ?(%x*)\n()")
    local rows, err, number
    if to and check ~= "" and check ~= ngx.md5(to):sub(1, 16) then
        return nil, "the sum of the generation is not " .. check
    elseif to then
        rows, err = rows_of(text, at)
    else
        rows, number = old_rows(text)
        err = number
    end
    if not rows then
        return nil, err
    end
    local high, low = 0, 0
    for i = 0, rows.n - 1 do
        if rows.list[i].body < 0 then
            return nil, "a row that goes"
        end
        high, low = bxor(high, rows.list[i].high), bxor(low, rows.list[i].low)
    end
    to = to or number .. "-" .. hex(high, low)
    if hex(high, low) ~= to:sub(-16) then
        return nil, "a row is missing"
    end
    return rows, to
end

-- restore takes over the state file, or the copy from before where that is newer or the file is damaged.
local function restore(name)
    local best, newest
    for _, path in ipairs({ name, name .. ".1" }) do
        local file = io.open(path, "rb")
        if file then
            local rows, to = file_rows(file:read("*a") or "")
            file:close()
            if not rows then
                ngx.log(ngx.ERR, "sluice: state file ", path, ": ", to)
            elseif not newest or newest < to then
                best, newest = rows, to
            end
        end
    end
    if best then
        local status, err = apply(best, 0, "-", "-", newest, true)
        if status ~= 200 then
            ngx.log(ngx.ERR, "sluice: state file ", name, ": ", err)
        end
    end
end
