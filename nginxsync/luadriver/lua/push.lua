
-- A push: from a text to the dictionary. The text is what nginxsync.Delta sends, or the state file:
--
--   sluice-delta 2 EPOCH WRITER FROM TO delta|full        or   sluice-routes 2 GENERATION
--   r SCOPE CLUSTER SUM BYTES                                  a row; its body of so many bytes follows
--   d SCOPE CLUSTER                                            a row that goes
--   end ROWS

-- rows_of reads the rows of a text from a byte on. It returns a list, or nil and what is wrong.
local function rows_of(text, at)
    local rows = {}
    while true do
        local scope, cluster, check, bytes, from = text:match("^r (%S+) (%S+) (%x+) (%d+)\n()", at)
        local gone_scope, gone, next_ = text:match("^d (%S+) (%S+)\n()", at)
        if scope then
            local key, body = scope .. " " .. cluster, text:sub(from, from + tonumber(bytes) - 1)
            local high, low = sum(key .. "\n" .. body)
            if hex(high, low) ~= check then
                return nil, "row " .. #rows + 1 .. ", of " .. key .. ": its sum is not " .. check
            end
            rows[#rows + 1] = { key = key, scope = scope, body = body, high = high, low = low }
            at = from + tonumber(bytes)
        elseif gone_scope then
            rows[#rows + 1] = { key = gone_scope .. " " .. gone, scope = gone_scope }
            at = next_
        elseif text:sub(at) == "end " .. #rows .. "\n" then
            return rows
        else
            return nil, "byte " .. at .. ": want a row or the end: the text is cut short or changed"
        end
        pause(#rows)
    end
end

-- room is how many bytes of the dictionary an entry takes: Nginx gives out powers of two up to half a page, then pages.
local function room(key, value)
    local bytes = 80 + #key + #value
    if bytes > 2048 then
        return math.ceil(bytes / 4096) * 4096
    end
    local _, power = math.frexp(bytes - 1)
    return 2 ^ power
end

-- plan is all that a push writes: slots by key, and the digest that they lead to.
local function plan(rows, seq, floor, full, to)
    local writes, scopes = {}, {}
    local digests = { "=" }
    local function total(key)
        local t = scopes[key]
        if not t then
            t = { count = 0, high = 0, low = 0 }
            local body, _, where = read(key, seq, floor)
            t.where, t.was = where, body
            if body and not full then
                local count, digest = body:match("^(%d+) (%x+)")
                t.count, t.high, t.low = tonumber(count), unhex(digest)
            end
            scopes[key] = t
            digests[#digests + 1] = key ~= "=" and key or nil
        end
        return t
    end
    local function turn(t, n, high, low)
        t.count, t.high, t.low = t.count + n, bxor(t.high, high), bxor(t.low, low)
    end
    local function view(scope, key, body, high, low)
        if scope == "-" then
            return sum(identity(key, body))
        end
        return high, low
    end
    local all = total("=")
    for n, row in ipairs(rows) do
        local before, since, where = read(row.key, seq, floor)
        local t = total(row.scope)
        if before and not full then
            local high, low = sum(row.key .. "\n" .. before)
            turn(all, -1, high, low)
            turn(t, -1, view(row.scope, row.key, before, high, low))
        end
        local value = "-"
        if row.body then
            turn(all, 1, row.high, row.low)
            turn(t, 1, view(row.scope, row.key, row.body, row.high, row.low))
            value = "+ " .. (seq == 0 and "-" or births(row.body, before, since)) .. "\n" .. row.body
        end
        if row.body or before then
            writes[#writes + 1] = { row.key, where == "a:" and "b:" or "a:", value }
        end
        pause(n)
    end
    local digest = hex(all.high, all.low)
    if digest ~= to:sub(-16) then
        return nil, "the rows lead to the digest " .. digest .. ", not to that of " .. to
    end
    for _, key in ipairs(digests) do
        local t = scopes[key]
        local value = (t.count > 0 or key == "=") and "+ -\n" .. t.count .. " " .. hex(t.high, t.low) or "-"
        if t.was or value ~= "-" then
            writes[#writes + 1] = { key, t.where == "a:" and "b:" or "a:", value }
        end
    end
    return writes
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

-- write puts a plan into the dictionary and brings it into force, whole. Without room the routes in force stay, and it returns nil,
-- the bytes that it takes and those that are free.
local function write(writes, full, to)
    local before, _, floor = in_force()
    local seq = shm:incr("last", 1, 0)
    local head, need, have = seq .. " ", 0, shm:free_space()
    local keys = {}
    for i, w in ipairs(writes) do
        need = need + room(w[1], w[3]) + 16
        keys[i] = w[1]
    end
    local list = not full and #keys <= 256 and table.concat(keys, "\n") or "*"
    if need > have + 65536 then
        return nil, need, have
    end
    local ok = shm:safe_set("pending", head .. list)
    crash("pending")
    for n, w in ipairs(writes) do
        ok = ok and shm:safe_set(w[2] .. w[1], head .. (w[3] == "-" and "- -\n" or w[3]))
        if not ok then
            break
        end
        if n == math.ceil(#writes / 2) then
            crash("rows")
        end
        pause(n)
    end
    crash("written")
    ok = ok and shm:safe_set("g:" .. seq, to .. " " .. (full and seq or floor) .. " " .. before .. " " .. list)
    if not ok then
        recover()
        return nil, need, have
    end
    crash("record")
    shm:set("seq", seq)
    crash("switched")
    if before > 0 then
        recover()
    else
        shm:delete("pending")
    end
    for old = math.max(before - LOG, 1), seq - LOG do
        shm:delete("g:" .. old)
    end
    return true
end

-- apply is a push of a text that was read. It returns a status and a text.
local function apply(rows, epoch, writer, from, to, full)
    local term, owner = (shm:get("epoch") or "0 -"):match("^(%d+) (%S+)$")
    term = tonumber(term)
    if epoch < term or epoch == term and writer ~= owner then
        return 409, "fenced: the writer of term " .. term .. " is " .. owner
    end
    recover()
    local seq, generation, floor = in_force()
    local status, message = 200, to
    if generation ~= to then
        if generation ~= "-" and to:sub(1, 20) <= generation:sub(1, 20) then
            return 409, "conflict: " .. generation .. " is in force"
        elseif not full and generation ~= from then
            return 409, "gap: " .. generation .. " is in force"
        end
        local writes, why = plan(rows, seq, floor, full, to)
        if not writes then
            return 400, why
        end
        local ok, need, have = write(writes, full, to)
        if not ok then
            return 507, string.format("%d %d", need, have)
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
    local rows, count, row, high, low = {}, 0, nil, 0, 0
    local function close()
        if row then
            row.body = table.concat(row)
            row.high, row.low = sum(row.key .. "\n" .. row.body)
            high, low = bxor(high, row.high), bxor(low, row.low)
            rows[#rows + 1] = row
        end
    end
    for line, stop in text:sub(at):gmatch("([^\n]*\n)()") do
        local cluster = line:match("^b (%S+)\n$")
        local vip, name = line:match("^v (%S+) (%S+)\n$")
        if cluster or vip then
            close()
            row = { key = (vip or "-") .. " " .. (name or cluster), scope = vip or "-" }
        elseif row and line:find("^[is] %S+ %d+ %d+ %S+ %S+\n$") then
            row[#row + 1] = line
        elseif line == "end " .. count .. "\n" and stop == #text - at + 2 then
            close()
            return rows, number .. "-" .. hex(high, low)
        else
            return nil, "bad row: " .. line
        end
        count = count + 1
    end
    return nil, "the last line is missing, the text is cut short"
end

-- file_rows reads a state file: rows and generation, or nil and what is wrong.
local function file_rows(text)
    local to, at = text:match("^sluice%-routes 2 (%d+%-%x+)\n()")
    if not to then
        return old_rows(text)
    end
    local rows, err = rows_of(text, at)
    if not rows then
        return nil, err
    end
    local high, low = 0, 0
    for _, row in ipairs(rows) do
        if not row.body then
            return nil, "a row that goes"
        end
        high, low = bxor(high, row.high), bxor(low, row.low)
    end
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
