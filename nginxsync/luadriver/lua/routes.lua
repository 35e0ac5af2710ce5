-- The routes of the running Nginx. They live in the shared dictionary sluice_routes in the line form of
-- nginxsync.Routes, in pieces; each worker keeps a table of them and looks, with each request, whether the dictionary
-- has another generation.

local loaded          -- the generation of the tables below, nil for none
local baseline, overlays = {}, {}
local views = { base = "none" } -- what the tokens are made of: see token.lua

-- identity says who serves a cluster of the baseline: its version or versions. Instances of a version that come and go
-- leave it as it is; those without a version are told apart by their rows.
local function identity(cluster, list, rows)
    local found, versions = {}, {}
    for _, peer in ipairs(list) do
        if peer.version == "" then
            return rows
        end
        if not found[peer.version] then
            found[peer.version] = true
            versions[#versions + 1] = peer.version
        end
    end
    table.sort(versions)
    return cluster .. " " .. table.concat(versions, " ") .. "\n"
end

-- parse reads the line form. It returns the generation, baseline, overlays, sets, states and views, or nil and what is wrong.
local function parse(text)
    local first, at = text:match("^sluice%-routes 1 (%d+%-%x+)\n()")
    if not first or #first ~= 37 then
        return nil, "want a line form of version 1"
    end
    local base, vips, new, states = {}, {}, {}, {}
    local born = loaded and clock() or -math.huge -- what is there when the worker starts is not new
    local served, views = {}, {} -- of the baseline by order, of each VIP
    local into, cluster, scope, view, list
    local count, from = 0, at
    local function close()
        if cluster then
            local rows = scope .. text:sub(from, at - 1)
            local set = peers(rows, list)
            into[cluster], new[rows] = set, set
            view[#view + 1] = scope == "" and identity(cluster, list, rows) or rows
        end
    end
    while true do
        local stop = text:find("\n", at, true)
        if not stop then
            return nil, "the last line is missing, the text is cut short"
        end
        local kind = text:sub(at, at + 1)
        if kind == "i " or kind == "s " then
            local host, port, weight, version, id = text:match("^%l (%S+) (%d+) (%d+) (%S+) (%S+)\n", at)
            if not host or not list then
                return nil, "bad row: " .. text:sub(at, stop - 1)
            end
            if host:find(":", 1, true) then
                host = "[" .. host .. "]"
            end
            local name = table.concat({ cluster, host, port, id }, " ")
            local state = states[name] or state_of(name, born)
            states[name] = state
            list[#list + 1] = { host = host, port = tonumber(port), weight = tonumber(weight), id = id, state = state,
                version = version ~= "-" and version or "", backup = kind == "s " }
        else
            close()
            local line = text:sub(at, stop - 1)
            local vip, name
            if kind == "b " then
                name = line:match("^b (%S+)$")
                into, scope, view = base, "", served
            elseif kind == "v " then
                vip, name = line:match("^v (%S+) (%S+)$")
                if vip then
                    into = vips[vip] or {}
                    vips[vip] = into
                    scope = vip .. " "
                    view = views[vip] or {}
                    views[vip] = view
                end
            elseif line == "end " .. count and stop == #text then
                views.base = ngx.md5(table.concat(served)):sub(1, 16)
                return first, base, vips, new, states, views
            end
            if not name then
                return nil, "bad row: " .. line
            end
            cluster, list, from = name, {}, at
        end
        count = count + 1
        at = stop + 1
    end
end

-- What the workers say of themselves is in a dictionary of its own, by the number of the configuration that they run on and their
-- id: during a reload old and new workers have the same ids. One that the master starts anew takes the place of its predecessor.
local workers = ngx.shared.sluice_workers
local reload          -- the number of this configuration
local running = false -- the worker has come to its event loop

local function report()
    if running and not ngx.worker.exiting() then
        workers:set(reload .. ":" .. ngx.worker.id(), ngx.worker.pid() .. " " .. (loaded or "-") .. " " .. config.tree)
    end
end

-- stored is the text in the dictionary and its generation.
local function stored()
    for _ = 1, 5 do
        local generation = shm:get("generation")
        if not generation then
            return nil
        end
        local n = shm:get("pieces:" .. generation)
        local parts = {}
        for i = 1, n or 0 do
            parts[i] = shm:get("piece:" .. generation .. ":" .. i)
        end
        if n and #parts == n then
            return generation, table.concat(parts)
        end
        -- Taken away between two reads: a newer generation is there now.
    end
    return nil, "the dictionary is incomplete"
end

local function load()
    local generation, text = stored()
    if not generation then
        if text then
            ngx.log(ngx.ERR, "sluice: ", text)
        end
        return
    end
    local parsed, base, vips, new, states, seen = parse(text)
    if not parsed then
        ngx.log(ngx.ERR, "sluice: routes ", generation, ": ", base)
        return
    end
    loaded, baseline, overlays, sets, known, views = parsed, base, vips, new, states, seen
    report()
end

local function remove(generation)
    for i = 1, shm:get("pieces:" .. generation) or 0 do
        shm:delete("piece:" .. generation .. ":" .. i)
    end
    shm:delete("pieces:" .. generation)
end

-- store puts a text that was parsed into the dictionary. The old one stays when there is no room for both.
local function store(generation, text)
    local before = shm:get("generation")
    local n = math.ceil(#text / config.piece)
    local ok, err = shm:safe_set("pieces:" .. generation, n)
    for i = 1, n do
        if not ok then
            break
        end
        ok, err = shm:safe_set("piece:" .. generation .. ":" .. i, text:sub((i - 1) * config.piece + 1, i * config.piece))
    end
    if ok then
        ok, err = shm:safe_set("generation", generation)
    end
    if not ok then
        remove(generation)
        return nil, err
    end
    if before and before ~= generation then
        remove(before)
    end
    return true
end

-- init runs in the master: a dictionary that survived a reload is newer than the file or equal.
function routes.init()
    reload = workers:incr("reloads", 1, 0)
    if shm:get("generation") or config.state_file == "" then
        return
    end
    local file = io.open(config.state_file, "rb")
    if not file then
        return -- nothing was pushed yet
    end
    local text = file:read("*a")
    file:close()
    local generation, err = parse(text)
    local ok = generation
    if ok then
        ok, err = store(generation, text)
    end
    if not ok then
        ngx.log(ngx.ERR, "sluice: state file ", config.state_file, ": ", err)
    end
end

-- start runs in each worker, and in the privileged agent, which has no id and takes no requests.
function routes.start()
    if not ngx.worker.id() then
        return
    end
    math.randomseed(ngx.worker.pid() + ngx.now() * 1000)
    loaded, baseline, overlays, sets, known, views = nil, {}, {}, {}, {}, { base = "none" }
    running = false
    load()
    -- Only now is the worker one that takes requests: code of the tree's own may run before that, and fail or hang.
    ngx.timer.at(0, function(premature)
        if not premature then
            running = true
            report()
        end
    end)
    ngx.timer.every(config.tick, function(premature)
        if premature then
            routes.leave()
            workers:delete(reload .. ":" .. ngx.worker.id()) -- it ends, and takes no more requests
            return
        end
        routes.tell()
        if shm:get("generation") ~= loaded then
            load()
        end
    end)
end

-- refresh loads what is in force, unless the worker has it.
local function refresh()
    if shm:get("generation") ~= loaded then
        load()
    end
end

-- vip_of is the VIP of the request, as it stands in the routes.
local function vip_of(var)
    local vip = var.sluice_vip
    if vip:sub(1, 7) == "::ffff:" then
        return vip:sub(8)
    end
    return vip
end

-- set_of is who serves the cluster on the VIP, or nil.
local function set_of(vip, cluster)
    local overlay = overlays[vip]
    return overlay and overlay[cluster] or baseline[cluster]
end

