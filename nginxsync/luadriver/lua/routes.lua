
-- What a worker knows of the routes: a row when it was asked for, and that there is none. It looks with each request whether the
-- dictionary has another push in force, and forgets what that one has changed.

local at, floor = 0, 0       -- the push that the tables below follow
local loaded                 -- its generation, nil for none
local scopes, cached = {}, 0 -- by scope: sets by cluster (false for none), and the view; false for a scope without a row
local previous               -- the scopes that were forgotten last: what was seen of instances stays while their sets are there
local ring, ring_at = {}, 0  -- the sets that were forgotten last
local MAX_CACHED = 200000    -- entries

local weak = { __mode = "v" }
setmetatable(sets, weak)
setmetatable(known, weak)

local function keep(x)
    ring_at = ring_at % 1024 + 1
    ring[ring_at] = x
end

local function forget_all()
    previous, scopes, cached = scopes, {}, 0
end

local function forget(key)
    local scope, cluster = key:match("^(%S+) (.+)$")
    if scope == "*" then
        forget_all() -- which instances may be asked depends on the pools
    elseif cluster then
        local there = scopes[scope]
        if there and there.sets[cluster] ~= nil then
            keep(there.sets[cluster])
            there.sets[cluster] = nil
        end
    elseif key == "-" and scopes[key] then
        scopes[key].view = nil
    else
        keep(scopes[key])
        scopes[key] = nil
    end
end

local running = false -- the worker has come to its event loop

local function report()
    if running and not ngx.worker.exiting() then
        workers:set(reload .. ":" .. ngx.worker.id(), ngx.worker.pid() .. " " .. (loaded or "-") .. " " .. config.tree)
    end
end

-- follow forgets what has changed since the push that the worker follows. Rows that it does not name stay.
local function follow()
    local seq, generation, low = in_force()
    local back, steps = seq, 0
    while back ~= at do
        local name, _, before, keys = record(back)
        steps = steps + 1
        if not name or keys == "*" or steps > LOG then
            forget_all()
            break
        end
        for key in keys:gmatch("[^\n]+") do
            forget(key)
        end
        back = before
    end
    at, floor, loaded = seq, low, generation ~= "-" and generation or nil
    report()
end

-- refresh follows what is in force, unless the worker does.
local function refresh()
    if shm:get("seq") ~= at then
        follow()
    end
end

-- fetch is the body of a key. When another push comes into force meanwhile it returns nil, and the worker follows that one.
local function fetch(key)
    local body, more = read(key, at, floor)
    refresh() -- its old rows go as soon as another push is in force
    return body, more
end

local pooled, note_of -- see below, and enter.lua

-- build makes a set of a row. A row that cannot be read has no instance. An instance on an address of a pool is left out: a request
-- to it would come back to Nginx.
local function build(key, cluster, body, more)
    local rows = key .. "\n" .. body
    local set, pools = sets[rows], note_of("*")
    pools = pools and pools.text
    if set and set.pools == pools then
        return set
    end
    sets[rows] = nil
    local loop
    local list, times = {}, more ~= "" and more:gmatch("[^,]+")
    for line in body:gmatch("[^\n]+") do
        local kind, host, port, weight, version, id = line:match("^(%l) (%S+) (%d+) (%d+) (%S+) (%S+)$")
        if not kind then
            ngx.log(ngx.ERR, "sluice: routes ", loaded, ": ", key, ": bad row: ", line)
            list = {}
            break
        end
        local back, address = pools and pooled(host), host
        if host:find(":", 1, true) then
            host = "[" .. host .. "]"
        end
        local name = table.concat({ cluster, host, port, id }, " ")
        local born = times and tonumber(times()) or 0
        if back then
            loop = host .. ":" .. port
        else
            local state = state_of(name, born == 0 and -math.huge or born)
            known[name] = state
            list[#list + 1] = { host = host, address = address, port = tonumber(port), weight = tonumber(weight), id = id,
                state = state, version = version ~= "-" and version or "", backup = kind == "s" }
        end
    end
    set = peers(rows, list)
    set.pools, set.loop = pools, loop
    sets[rows] = set
    return set
end

-- scope_of is what the worker knows of a scope, or false.
local function scope_of(scope)
    local there = scopes[scope]
    if there == nil then
        local body = fetch(scope)
        there = body and { sets = {}, view = body } or false
        if cached >= MAX_CACHED then
            forget_all()
        end
        scopes[scope], cached = there, cached + 1
    end
    return there
end

local function find(scope, cluster)
    local there = scope_of(scope)
    if not there then
        return false
    end
    local set = there.sets[cluster]
    if set == nil then
        local key = scope .. " " .. cluster
        local body, more = fetch(key)
        set = body and build(key, cluster, body, more) or false
        if cached >= MAX_CACHED then
            forget_all()
        end
        there.sets[cluster], cached = set, cached + 1
    end
    return set
end

-- read_note is what the note of a scope says: its branches as scopes, and how its last lease ended; or ranges of pools.
local function read_note(body)
    local note = { versions = {}, text = body }
    for kind, first, second in body:gmatch("(%l) (%S+) ?(%S*)\n") do
        if kind == "b" then
            note.branches = note.branches or {}
            note.branches[#note.branches + 1] = "@" .. first
        elseif kind == "e" then
            note.task, note.at = first, tonumber(second)
        elseif kind == "v" then
            note.versions[#note.versions + 1] = { first, second }
        elseif kind == "a" then
            note[#note + 1] = { first, second }
        end
    end
    return note
end

-- note_of is the note of a scope, or false.
function note_of(scope)
    local there = scope_of(scope)
    if not there then
        return false
    end
    local note = there.sets["="] -- no cluster has the name
    if note == nil then
        local body = fetch(scope .. " =")
        note = body and read_note(body) or false
        there.sets["="], cached = note, cached + 1
    end
    return note
end

-- consistent runs f until no push has come into force meanwhile.
local function consistent(f, a, b)
    while true do
        local before = at
        local result = f(a, b)
        if at == before then
            return result
        end
        forget_all() -- what was found may be of before
    end
end

-- serving asks the scopes in their order: the VIP, its branches, the baseline. The first that names the cluster counts.
local function serving(vip, cluster)
    local set = find(vip, cluster)
    local note = not set and note_of(vip)
    if note and note.branches then
        for _, branch in ipairs(note.branches) do
            set = set or find(branch, cluster)
        end
    end
    return set or find("-", cluster) or nil
end

-- set_of is who serves the cluster on the VIP, or nil.
local function set_of(vip, cluster)
    local there = scopes[vip]
    local set = there and there.sets[cluster]
    local note = there and there.sets["="]
    if not set and (there == false or set == false and (note == false or note and not note.branches)) then
        there = scopes["-"]
        set = there and there.sets[cluster]
    end
    return set or consistent(serving, vip, cluster)
end

-- view_of is the digest of the rows of a scope, or nil.
local function view_of(scope)
    local there = scope_of(scope)
    if there and not there.view then
        there.view = fetch(scope)
    end
    return there and there.view or nil
end

-- vip_of is the VIP of the request, as it stands in the routes.
local function vip_of(var)
    local vip = var.sluice_vip
    if vip:sub(1, 7) == "::ffff:" then
        return vip:sub(8)
    end
    return vip
end

-- The main request that entered last, by its id, and its VIP, so that balance need not read them again. 0 stands for none.
local entered, entered_vip = 0, nil

-- init runs in the master: a dictionary that survived a reload is newer than the file or equal.
function routes.init()
    reload = workers:incr("reloads", 1, 0)
    open_hub()
    if not shm:get("seq") then
        shm:set("seq", 0)
        if config.state_file ~= "" then
            restore(config.state_file)
        end
    end
end

-- heard looks what is new: a push, a question.
function routes.heard()
    routes.tell()
    refresh()
end

local QUICK = 0.02 -- seconds between looks of a worker that nothing wakes

-- start runs in each worker, and in the privileged agent, which has no id and takes no requests.
function routes.start()
    if not ngx.worker.id() then
        return
    end
    clear_column()
    math.randomseed(ngx.worker.pid() + ngx.now() * 1000)
    at, floor, loaded, running = 0, 0, nil, false
    forget_all()
    follow()
    -- Only now is the worker one that takes requests: code of the tree's own may run before that, and fail or hang.
    ngx.timer.at(0, function(premature)
        if not premature then
            running = true
            report()
            listens()
        end
    end)
    local quick = false
    local function tick(premature)
        if premature then
            routes.leave()
            workers:delete(reload .. ":" .. ngx.worker.id()) -- it ends, and takes no more requests
            wake()
            return
        end
        routes.heard()
        if not listens() and not quick then
            quick = true
            ngx.timer.every(math.min(config.tick, QUICK), tick)
        end
    end
    ngx.timer.every(config.tick, tick)
end
