-- The routes of the running Nginx. They live in the shared dictionary sluice_routes in the line form of
-- nginxsync.Routes, in pieces; each worker keeps a table of them and looks, with each request, whether the dictionary
-- has another generation.
local config = CONFIG
local shm = ngx.shared.sluice_routes
local balancer = require "ngx.balancer"
local set_current_peer, set_more_tries = balancer.set_current_peer, balancer.set_more_tries
local get_last_failure = balancer.get_last_failure

local ffi = require "ffi"
ffi.cdef "int kill(int pid, int sig);"
local ESRCH = 3 -- on every Unix

local routes = {}
local loaded          -- the generation of the tables below, nil for none
local baseline, overlays = {}, {}
local views = { base = "none" } -- what the tokens are made of: see token.lua
local sets = {}       -- every set of peers by its rows: one that stays keeps its turn and its failures

local known = {}      -- what was seen of each peer, by cluster, address and id: it outlives a change of the others

local function group(list)
    list.n, list.turn, list.equal = #list, 0, true
    for _, peer in ipairs(list) do
        list.equal = list.equal and peer.weight == list[1].weight
    end
    if list.n > 0 then
        list.turn = math.random(0, list.n - 1) -- so that the workers do not all begin with the first
    end
    return list
end

local function peers(rows, list)
    local set = sets[rows]
    if set then
        return set
    end
    local main, spare = {}, {}
    for _, peer in ipairs(list) do
        local into = peer.backup and spare or main
        into[#into + 1] = peer
    end
    local version, mixed = list[1] and list[1].version or "none", false
    for _, peer in ipairs(list) do
        mixed = mixed or peer.version ~= version
    end
    return { n = #list, first = list[1], main = group(main), spare = group(spare), version = version, mixed = mixed }
end

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
    local born = loaded and ngx.now() or 0 -- what is there when the worker starts is not new
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
            local name = table.concat({ scope, cluster, host, port, id }, " ")
            local state = known[name] or { current = 0, active = 0, fails = 0, since = 0, down = 0, born = born }
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
            workers:delete(reload .. ":" .. ngx.worker.id()) -- it ends, and takes no more requests
        elseif shm:get("generation") ~= loaded then
            load()
        end
    end)
end

local function failed(state, max_fails, fail_timeout)
    local now = ngx.now()
    if now - state.since > fail_timeout then
        state.fails, state.since = 0, now
    end
    state.fails = state.fails + 1
    if max_fails > 0 and state.fails >= max_fails then
        state.down = now + fail_timeout
    end
end

-- A peer may be asked when it did not fail lately and this request did not try it yet.
local function usable(peer, now, tried)
    return peer.state.down <= now and not (tried and tried[peer])
end

-- share is the weight of a peer, which grows from nothing while the peer is new.
local function share(peer, now, slow)
    local age = now - peer.state.born
    if age < slow then
        return peer.weight * math.max(age / slow, 0.0001)
    end
    return peer.weight
end

-- round_robin takes turns smoothly by weight, among all or among those that the filter takes.
local function round_robin(group, now, tried, slow, filter)
    if group.equal and slow == 0 and not filter then
        for _ = 1, group.n do
            group.turn = group.turn % group.n + 1
            if usable(group[group.turn], now, tried) then
                return group[group.turn]
            end
        end
        return nil
    end
    local best, total = nil, 0
    for i = 1, group.n do
        local peer = group[i]
        if usable(peer, now, tried) and (not filter or filter(peer)) then
            local weight, state = share(peer, now, slow), peer.state
            state.current = state.current + weight
            total = total + weight
            if not best or state.current > best.state.current then
                best = peer
            end
        end
    end
    if best then
        best.state.current = best.state.current - total
    end
    return best
end

-- least_conn takes turns among the peers that have the fewest requests for their weight in this worker.
local function least_conn(group, now, tried, slow)
    local least
    local function load_of(peer)
        return peer.state.active / share(peer, now, slow)
    end
    for i = 1, group.n do
        if usable(group[i], now, tried) and (not least or load_of(group[i]) < least) then
            least = load_of(group[i])
        end
    end
    return round_robin(group, now, tried, slow, function(peer) return load_of(peer) == least end)
end

-- by_hash gives a key to the peer with the best lot (rendezvous hashing): the same in every worker, in proportion to the
-- weights, and when a peer comes or goes only its own keys move.
local function by_hash(group, now, tried, slow, key)
    local best, least
    for i = 1, group.n do
        local peer = group[i]
        if usable(peer, now, tried) then
            local a, b, c, d, e, f = ngx.md5_bin(key .. "\0" .. peer.id):byte(1, 6)
            local lot = (((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f + 0.5) / 2 ^ 48
            local score = -math.log(lot) / share(peer, now, slow)
            if not best or score < least then
                best, least = peer, score
            end
        end
    end
    return best
end

local expressions = {} -- parts by text: a string as it is, or the name of a variable in a table

local function expression(text)
    local parts, at = {}, 1
    while at <= #text do
        local from, to, name = text:find("%$([%w_]+)", at)
        local from2, to2, name2 = text:find("%${([%w_]+)}", at)
        if from2 and (not from or from2 < from) then
            from, to, name = from2, to2, name2
        end
        if not from then
            parts[#parts + 1] = text:sub(at)
            break
        end
        parts[#parts + 1] = text:sub(at, from - 1)
        parts[#parts + 1] = { tonumber(name) or name }
        at = to + 1
    end
    expressions[text] = parts
    return parts
end

local function evaluate(text)
    local out = {}
    for i, part in ipairs(expressions[text] or expression(text)) do
        out[i] = type(part) == "string" and part or ngx.var[part[1]] or ""
    end
    return table.concat(out)
end

local function pick(set, tried, slow, method, key)
    local now, choose, by = ngx.now(), round_robin, nil
    if method == "least_conn" then
        choose = least_conn
    elseif method == "hash" then
        choose, by = by_hash, evaluate(key)
    elseif method == "ip_hash" then
        local addr = ngx.var.binary_remote_addr
        choose, by = by_hash, #addr == 4 and addr:sub(1, 3) or addr
    end
    local peer = choose(set.main, now, tried, slow, by) or choose(set.spare, now, tried, slow, by)
    if peer then
        return peer
    end
    -- All failed lately: one of them is tried all the same.
    local group = set.main.n > 0 and set.main or set.spare
    group.turn = group.turn % group.n + 1
    return group[group.turn]
end

local inflight = {} -- for least_conn, the state of the peer by request; ngx.ctx would not outlive an internal redirect

local function request()
    return ngx.var.connection .. ":" .. ngx.var.connection_requests
end

local function count(state)
    local id = request()
    local before = inflight[id]
    if before then
        before.active = before.active - 1
    end
    if state then
        state.active = state.active + 1
    end
    inflight[id] = state
end

-- done runs when a request has ended, where an upstream balances by least_conn.
function routes.done()
    count(nil)
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

-- A subrequest shares the variables of its request, and says nothing of the answer.
local function answers(var, version)
    if not ngx.is_subrequest then
        var.sluice_version = version
    end
end

local NGX_BUSY = -3 -- ngx_core.h: Nginx goes on as if no peer were alive

-- balance chooses the peer of a request to the cluster, in the balancer phase. plain is whether all that pass to the upstream
-- speak plain HTTP to it.
function routes.balance(cluster, max_fails, fail_timeout, plain, slow, method, key)
    refresh()
    local var = ngx.var
    local vip = vip_of(var)
    local set = set_of(vip, cluster)
    routes.keep(var, vip, set)
    if not set or set.n == 0 then
        answers(var, "none")
        var.sluice_reason = "no-instance; cluster=" .. cluster
        if not plain then
            return ngx.exit(NGX_BUSY)
        end
        set_current_peer(config.unavailable)
        return
    end
    local peer = set.first
    if set.n > 1 then
        local ctx = ngx.ctx
        if get_last_failure() then
            if ctx.sluice_peer then
                failed(ctx.sluice_peer.state, max_fails, fail_timeout)
                ctx.sluice_tried = ctx.sluice_tried or {}
                ctx.sluice_tried[ctx.sluice_peer] = true
            end
        else
            set_more_tries(set.n - 1)
            ctx.sluice_tried = nil
        end
        peer = pick(set, ctx.sluice_tried, slow or 0, method, key)
        ctx.sluice_peer = peer
        if method == "least_conn" then
            count(peer.state)
        end
    end
    answers(var, peer.version)
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

-- ended reports whether a process is there no more.
local function ended(pid)
    return ffi.C.kill(pid, 0) ~= 0 and ffi.errno() == ESRCH
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
