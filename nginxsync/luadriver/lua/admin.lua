
-- The admin socket: the state, a push, and the routes as they are.

local function answer(status, text)
    ngx.status = status
    ngx.header.content_type = "text/plain"
    ngx.print(text, "\n")
end

-- reports is what the workers say, by their keys: those of this configuration, and those of another one that still or already take
-- requests.
local function reports()
    local rows = {}
    for id = 0, ngx.worker.count() - 1 do
        rows[reload .. ":" .. id] = "0 - -"
    end
    for _, key in ipairs(workers:get_keys(0)) do
        local value = key:find(":", 1, true) and workers:get(key)
        local pid = value and tonumber(value:match("^%d+"))
        if pid and not rows[key] and ended(pid) then
            workers:delete(key) -- it was killed while it ended
        elseif pid then
            rows[key] = value
        end
    end
    return rows
end

-- state answers which generation is in force and with which each worker answers.
function routes.state()
    refresh()
    local out = {}
    for key, value in pairs(reports()) do
        out[#out + 1] = string.format("worker %d %s", key:match(":(%d+)$"), value)
    end
    table.sort(out)
    local _, generation = in_force()
    table.insert(out, 1, "generation " .. generation)
    table.insert(out, 2, "epoch " .. (shm:get("epoch") or "0 -"))
    table.insert(out, 3, string.format("memory %d %d", shm:capacity(), shm:free_space()))
    table.insert(out, 4, "master " .. ffi.C.sluice_getppid())
    answer(200, table.concat(out, "\n"))
end

local SETTLE = 0.1 -- seconds that a push waits for the workers before it is answered

-- settle wakes the workers and waits a moment until each of them answers with the generation: who pushed asks for the state next.
local function settle(generation)
    wake()
    local till = clock() + SETTLE
    while true do
        local behind, left = false, till - clock()
        for _, value in pairs(reports()) do
            behind = behind or value:match("^%d+ (%S+)") ~= generation
        end
        local _, now = in_force()
        if not behind or left <= 0 or now ~= generation then
            return
        end
        pause_for(left)
    end
end

local function body()
    ngx.req.read_body()
    local text = ngx.req.get_body_data()
    local name = not text and ngx.req.get_body_file()
    if name then
        local file = io.open(name, "rb")
        text = file and file:read("*a")
        if file then
            file:close()
        end
    end
    return text or ""
end

-- put takes a delta: 200 in force, 400 not a delta, 409 "fenced", "conflict" or "gap", 423 busy, 507 the bytes that it takes and
-- those that are free.
function routes.put()
    local text = body()
    local epoch, writer, from, to, kind, first =
        text:match("^sluice%-delta 2 (%d+) (%S+) (%S+) (%d+%-%x+) (%l+)\n()")
    if not epoch or #to ~= 37 then
        return answer(400, "want a delta of version 2")
    end
    local rows, err = rows_of(text, first)
    if not rows then
        return answer(400, err)
    end
    local mine = lock()
    if not mine then
        return answer(423, "another push is under way")
    end
    local done, status, message = pcall(apply, rows, tonumber(epoch), writer, from, to, kind == "full")
    unlock(mine)
    if not done then
        ngx.log(ngx.ERR, "sluice: push ", to, ": ", status)
        return answer(500, status)
    end
    refresh()
    if status == 200 then
        settle(to)
    end
    answer(status, message)
end

-- stored is the routes in force in the form of the state file, or nil.
local function stored()
    while true do
        local seq, generation, low = in_force()
        if seq == 0 then
            return nil
        end
        local out, count = { "sluice-routes 2 ", generation, "\n" }, 0
        for n, key in ipairs(keys_of()) do
            local text = key:find(" ", 1, true) and read(key, seq, low)
            if text then
                count = count + 1
                out[#out + 1] = string.format("r %s %s %d\n%s", key, hex(sum(key, text)), #text, text)
            end
            pause(n)
        end
        if shm:get("seq") == seq then
            out[#out + 1] = "end " .. count .. "\n"
            return table.concat(out)
        end
    end
end

function routes.admin()
    if ngx.req.get_method() == "PUT" then
        return routes.put()
    end
    local text = stored()
    if not text then
        return answer(404, "no routes")
    end
    ngx.header.content_type = "text/plain"
    ngx.print(text)
end
