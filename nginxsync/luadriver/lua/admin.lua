-- The admin socket: the state, and a push.

local function answer(status, text)
    ngx.status = status
    ngx.header.content_type = "text/plain"
    ngx.print(text, "\n")
end

-- ended reports whether a process is there no more.
local function ended(pid)
    return ffi.C.sluice_kill(pid, 0) ~= 0 and ffi.errno() == ESRCH
end

-- state answers which generation is in force and with which each worker answers: those of this configuration, and those of another one
-- that still or already take requests.
function routes.state()
    local rows = {}
    for id = 0, ngx.worker.count() - 1 do
        rows[reload .. ":" .. id] = "0 - -"
    end
    for _, key in ipairs(workers:get_keys(0)) do
        local value = workers:get(key)
        local pid = value and key:find(":", 1, true) and tonumber(value:match("^%d+"))
        if pid and not rows[key] and ended(pid) then
            workers:delete(key) -- it was killed while it ended
        elseif pid then
            rows[key] = value
        end
    end
    local out = {}
    for key, value in pairs(rows) do
        out[#out + 1] = string.format("worker %d %s", key:match(":(%d+)$"), value)
    end
    table.sort(out)
    table.insert(out, 1, "generation " .. (shm:get("generation") or "-"))
    answer(200, table.concat(out, "\n"))
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

-- put takes routes: 200 in force, 400 not routes, 409 not newer than what is in force, 423 busy, 507 no room.
function routes.put()
    local text = body()
    local generation, err = parse(text)
    if not generation then
        return answer(400, err)
    end
    if not shm:add("lock", 1, 5) then
        return answer(423, "another push is under way")
    end
    local before = shm:get("generation")
    local status, message = 200, generation
    if before and before ~= generation and generation:sub(1, 20) <= before:sub(1, 20) then
        status, message = 409, before
    elseif before ~= generation then
        local ok, why = store(generation, text)
        if not ok then
            status, message = 507, why
        end
    end
    shm:delete("lock")
    if status == 200 then
        load()
    end
    answer(status, message)
end

function routes.admin()
    if ngx.req.get_method() == "PUT" then
        return routes.put()
    end
    local generation, text = stored()
    if not generation then
        return answer(404, text or "no routes")
    end
    ngx.header.content_type = "text/plain"
    ngx.print(text)
end

