-- The routes of the running Nginx. They live in the shared dictionary sluice_routes in the line form of
-- nginxsync.Routes, in pieces; each worker keeps a table of them and looks, with each request, whether the dictionary
-- has another generation.
local config = CONFIG
local shm = ngx.shared.sluice_routes
local balancer = require "ngx.balancer"
local set_current_peer, set_more_tries = balancer.set_current_peer, balancer.set_more_tries
local get_last_failure = balancer.get_last_failure

local routes = {}
local loaded          -- the generation of the tables below, nil for none
local baseline, overlays = {}, {}
local sets = {}       -- every set of peers by its rows: one that stays keeps its turn and its failures

local function peers(rows, list)
    local set = sets[rows]
    if set then
        return set
    end
    set = { rows = rows, n = #list, turn = 0, equal = true }
    for i, peer in ipairs(list) do
        set[i] = peer
        set.equal = set.equal and peer.weight == list[1].weight
    end
    if set.n > 0 then
        set.turn = math.random(0, set.n - 1) -- so that the workers do not all begin with the first
    end
    return set
end

-- parse reads the line form. It returns the generation, baseline, overlays and sets, or nil and what is wrong.
local function parse(text)
    local first, at = text:match("^sluice%-routes 1 (%d+%-%x+)\n()")
    if not first or #first ~= 37 then
        return nil, "want a line form of version 1"
    end
    local base, vips, new = {}, {}, {}
    local into, cluster, scope, list
    local count, from = 0, at
    local function close()
        if cluster then
            local rows = scope .. text:sub(from, at - 1)
            local set = peers(rows, list)
            into[cluster], new[rows] = set, set
        end
    end
    while true do
        local stop = text:find("\n", at, true)
        if not stop then
            return nil, "the last line is missing, the text is cut short"
        end
        local kind = text:sub(at, at + 1)
        if kind == "i " then
            local host, port, weight, version = text:match("^i (%S+) (%d+) (%d+) (%S+) %S+\n", at)
            if not host or not list then
                return nil, "bad row: " .. text:sub(at, stop - 1)
            end
            if host:find(":", 1, true) then
                host = "[" .. host .. "]"
            end
            list[#list + 1] = { host = host, port = tonumber(port), weight = tonumber(weight), current = 0,
                version = version ~= "-" and version or "", fails = 0, since = 0, down = 0 }
        else
            close()
            local line = text:sub(at, stop - 1)
            local vip, name
            if kind == "b " then
                name = line:match("^b (%S+)$")
                into, scope = base, ""
            elseif kind == "v " then
                vip, name = line:match("^v (%S+) (%S+)$")
                if vip then
                    into = vips[vip] or {}
                    vips[vip] = into
                    scope = vip .. " "
                end
            elseif line == "end " .. count and stop == #text then
                return first, base, vips, new
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

local function report()
    local id = ngx.worker.id()
    if id then
        -- Always of the same length, so that the dictionary has the room once it had it.
        shm:safe_set("worker:" .. id, string.format("%010d %-37s %s", ngx.worker.pid(), loaded or "-", config.tree))
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
    local parsed, base, vips, new = parse(text)
    if not parsed then
        ngx.log(ngx.ERR, "sluice: routes ", generation, ": ", base)
        return
    end
    loaded, baseline, overlays, sets = parsed, base, vips, new
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

-- start runs in each worker.
function routes.start()
    math.randomseed(ngx.worker.pid() + ngx.now() * 1000)
    loaded, baseline, overlays, sets = nil, {}, {}, {}
    load()
    report()
    ngx.timer.every(config.tick, function(premature)
        if not premature and shm:get("generation") ~= loaded then
            load()
        end
    end)
end

local function failed(peer, max_fails, fail_timeout)
    local now = ngx.now()
    if now - peer.since > fail_timeout then
        peer.fails, peer.since = 0, now
    end
    peer.fails = peer.fails + 1
    if max_fails > 0 and peer.fails >= max_fails then
        peer.down = now + fail_timeout
    end
end

-- pick is smooth weighted round robin over the peers that did not fail lately, or over all when all did.
local function pick(set)
    local n, now = set.n, nil
    if set.equal then
        for _ = 1, n do
            set.turn = set.turn % n + 1
            local peer = set[set.turn]
            if peer.down == 0 then
                return peer
            end
            now = now or ngx.now()
            if peer.down <= now then
                peer.down = 0
                return peer
            end
        end
        return set[set.turn]
    end
    local best, total = nil, 0
    now = ngx.now()
    for i = 1, n do
        local peer = set[i]
        if peer.down <= now then
            peer.current = peer.current + peer.weight
            total = total + peer.weight
            if not best or peer.current > best.current then
                best = peer
            end
        end
    end
    if not best then
        set.turn = set.turn % n + 1
        return set[set.turn]
    end
    best.current = best.current - total
    return best
end

-- balance chooses the peer of a request to the cluster, in the balancer phase.
function routes.balance(cluster, max_fails, fail_timeout)
    if shm:get("generation") ~= loaded then
        load()
    end
    local var = ngx.var
    local vip = var.sluice_vip
    if vip:sub(1, 7) == "::ffff:" then
        vip = vip:sub(8)
    end
    local overlay = overlays[vip]
    local set = overlay and overlay[cluster] or baseline[cluster]
    if not set or set.n == 0 then
        var.sluice_version = "none"
        set_current_peer(config.unavailable)
        return
    end
    local peer
    if set.n == 1 then
        peer = set[1]
    else
        local ctx = ngx.ctx
        if get_last_failure() then
            if ctx.sluice_peer then
                failed(ctx.sluice_peer, max_fails, fail_timeout)
            end
        else
            set_more_tries(set.n - 1)
        end
        peer = pick(set)
        ctx.sluice_peer = peer
    end
    var.sluice_version = peer.version
    local ok, err = set_current_peer(peer.host, peer.port)
    if not ok then
        ngx.log(ngx.ERR, "sluice: cluster ", cluster, ": ", peer.host, ":", peer.port, ": ", err)
        ngx.exit(ngx.ERROR)
    end
end

local function answer(status, text)
    ngx.status = status
    ngx.header.content_type = "text/plain"
    ngx.print(text, "\n")
end

-- state answers which generation is in force and with which each worker answers.
function routes.state()
    local out = { "generation " .. (shm:get("generation") or "-") }
    for id = 0, ngx.worker.count() - 1 do
        local pid, generation, tree = (shm:get("worker:" .. id) or ""):match("^(%d+) (%S+) *(%S*)")
        out[#out + 1] = string.format("worker %d %d %s %s", id, tonumber(pid or 0), generation or "-", tree or "-")
    end
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

package.loaded["sluice.routes"] = routes
routes.init()
