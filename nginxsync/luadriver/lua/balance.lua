-- The balancer phase: who answers a request to a cluster. The log phase: what became of it.

-- A try is what is known of a request that was given to an instance: the instance, its set, and the rules of the upstream. It lasts
-- from the first choice to the end of the request.
local tries = {}     -- by request
local children = {}  -- the requests with a try that are subrequests, by the main request: the log phase is of the main request only
local parents = 0
local spare_tries = {}

local held, holding = {}, 0 -- by main request: the token of its subrequests that have variables of their own

-- id_of names a request while it lives; ngx.ctx would not outlive an internal redirect.
local function id_of(request)
    return tonumber(ffi.cast("uintptr_t", request))
end

-- main_of names the main request of a subrequest, and the main request itself.
local function main_of()
    return ngx.var.connection .. ":" .. ngx.var.connection_requests
end

local leaving -- set in a worker that ends: publishes what is in flight

-- add counts a request that an instance has, or has no more.
local function add(peer, n)
    peer.load.n = peer.load.n + n
    peer.state.n = peer.state.n + n
end

local function give(try, peer)
    add(peer, 1)
    try.peer, try.counted = peer, false
    local record = try.zone and common(peer.state)
    if record then
        record.used = clock()
        add_conns(peer.state, 1) -- a record with requests stays where it is
        try.counted = true
    end
end

local function take(try)
    local peer = try.peer
    if peer then
        add(peer, -1)
        if try.counted then
            add_conns(peer.state, -1)
        end
        try.peer = nil
    end
end

local function forget(id)
    local try = tries[id]
    if try then
        take(try)
        tries[id] = nil
        try.set, try.tried, try.version, try.connection = nil, nil, nil, nil
        spare_tries[#spare_tries + 1] = try
    end
end

local first, answers, silence
do
    local said, saying = {}, 0 -- by connection: whether its request has a reason, so that others need not read theirs

    -- connection_of names the connection of a request: that of its subrequests too, and of no other request at the time. It is the
    -- first pointer of ngx_http_request_t.
    local function connection_of(id)
        return tonumber(ffi.cast("uintptr_t *", id)[1])
    end

    -- first makes the try of a request that asks an upstream for the first time. A request that Nginx sent on to another location has
    -- one already: $upstream_header_time has a " : " between the two.
    function first(id)
        local before = tries[id]
        if before and before.peer and before.several then
            local times = (ngx.var.upstream_header_time or ""):match("^(.*) : ")
            if times and times:sub(-1) == "-" then
                failed(before.peer.state, before.zone)
            end
        end
        forget(id)
        local try = table.remove(spare_tries) or {}
        tries[id] = try
        if ngx.is_subrequest then
            local main = main_of()
            local list = children[main]
            if not list then
                list = {}
                children[main], parents = list, parents + 1
            end
            list[#list + 1] = id
        else
            try.connection = connection_of(id)
        end
        return try
    end

    -- main_is_asked reports whether the main request of a subrequest was given to an instance.
    local function main_is_asked(id)
        local connection = connection_of(id)
        for _, try in pairs(tries) do
            if try.connection == connection then
                return true
            end
        end
        return false
    end

    -- say sets the reason of a request, or with "" takes it back.
    local function say(var, connection, reason)
        local has = reason ~= "" or nil
        if said[connection] ~= has then
            said[connection], saying = has, saying + (has and 1 or -1)
        end
        var.sluice_reason = reason
    end

    -- silence forgets that a request which has ended had a reason.
    function silence(id)
        if saying > 0 and not ngx.is_subrequest then
            local connection = connection_of(id)
            if said[connection] then
                said[connection], saying = nil, saying - 1
            end
        end
    end

    -- A subrequest shares the variables of its request. It says nothing of the answer, unless it is refused and nothing else answers: a
    -- request that auth_request ends has the reason of its subrequest, one that an instance answers has none, whatever became of a mirror.
    function answers(var, id, version, reason)
        if not ngx.is_subrequest then
            var.sluice_version = version
            if reason ~= "" or saying > 0 and said[connection_of(id)] then
                say(var, connection_of(id), reason)
            end
        elseif reason ~= "" and not said[connection_of(id)] and not main_is_asked(id) then
            say(var, connection_of(id), reason)
        end
    end
end

-- unanswered reports whether the last instance that was asked gave no answer: then there is no time at which its header came. A
-- client that went away is not its fault.
local function unanswered()
    local status = ngx.status
    if status == 499 then
        return false
    end
    local var = ngx.var
    -- An answer of less than 500 comes from the instance, unless Nginx went on to another location or took a stale page.
    if status < 500 and not ngx.req.is_internal() and not (tokens_used and var.upstream_cache_status == "STALE") then
        return false
    end
    local times = var.upstream_header_time
    return times ~= nil and times:sub(-1) == "-"
end

-- done runs when a request has ended.
function routes.done()
    local id = id_of(get_request())
    if entered == id then
        entered = 0
    end
    local try = tries[id]
    if try and try.peer then
        local state, zone = try.peer.state, try.zone
        if try.several and unanswered() then
            failed(state, zone)
        elseif seen(state, zone).fails > 0 and ngx.status ~= 499 then
            succeeded(state, zone)
        end
    end
    forget(id)
    silence(id)
    if parents > 0 then
        local main = main_of()
        local list = children[main]
        if list then
            children[main], parents = nil, parents - 1
            for _, child in ipairs(list) do
                forget(child)
            end
        end
    end
    if holding > 0 and not ngx.is_subrequest then
        local main = main_of()
        if held[main] then
            held[main], holding = nil, holding - 1
        end
    end
    if leaving then
        leaving()
    end
end

local NGX_BUSY = -3 -- ngx_core.h: Nginx goes on as if no peer were alive

-- unavailable answers 503. plain is whether all that pass to the upstream speak plain HTTP to it.
local function unavailable(plain)
    if not plain then
        return ngx.exit(NGX_BUSY)
    end
    set_current_peer(config.unavailable)
end

-- refused answers 503 in the place of an instance. loop is the address of one that leads back to Nginx, nil where there is none.
local function refused(var, id, cluster, plain, loop)
    forget(id)
    answers(var, id, "none", (loop and "loop; address=" .. loop .. "; cluster=" or "no-instance; cluster=") .. cluster)
    return unavailable(plain)
end

-- choose_peer gives a try to one of several instances, or to the only one where that is not full: it returns nil where all are.
local function choose_peer(set, try, method, key)
    local peer
    if set.n > 1 then
        peer = pick(set, try, method, key)
        if not peer and try.version then
            try.version = nil
            peer = pick(set, try, method, key)
        end
    elseif open(set.first, try) then
        peer = set.first
    end
    if not peer then
        return nil
    end
    local health = seen(peer.state, try.zone)
    if try.now - health.checked > try.fail_timeout then
        health.checked = try.now
    end
    give(try, peer)
    return peer
end

-- balance chooses the instance of a request to the cluster, in the balancer phase. method is a key of methods, key the text of what
-- is hashed, nil for a method without one. zone is whether all workers share what they know of the instances.
function routes.balance(cluster, plain, max_fails, fail_timeout, max_conns, slow, zone, method, key)
    local var, id = ngx.var, id_of(get_request())
    local vip = entered_vip
    if entered ~= id or leaving then
        refresh()
        vip = vip_of(var)
    end
    local set = set_of(vip, cluster)
    local try = tries[id]
    local failure = try and get_last_failure()
    if failure then
        -- The next try stays in the set of the first, whatever the routes have become; in a set of several versions it goes to
        -- those of the same version before the others.
        local peer = try.peer
        if failure == "failed" then
            failed(peer.state, zone)
        else -- "next": an answer of 403 or 404, which Nginx counts as one
            succeeded(peer.state, zone)
        end
        try.tried = try.tried or {}
        try.tried[peer.state] = true
        take(try)
        if not set or set.mixed or set.version ~= try.set.version then
            set = try.set
        end
        try.version = set.mixed and peer.version or nil
    else
        routes.keep(var, vip, set)
        if not set or set.n == 0 then
            return refused(var, id, cluster, plain, set and set.loop)
        end
        try = first(id)
        if set.n > 1 then
            set_more_tries(set.n - 1)
        end
    end
    try.set, try.several, try.zone = set, set.n > 1, zone
    local peer = set.first
    if set.n > 1 or max_conns > 0 then
        try.now, try.max_fails, try.fail_timeout, try.max_conns, try.slow = clock(), max_fails, fail_timeout, max_conns, slow
        local choose, text = method_of(method, key)
        if zone then
            peer = exclusive(choose_peer, set, try, choose, text)
        else
            peer = choose_peer(set, try, choose, text)
        end
        if not peer then
            forget(id)
            return ngx.exit(NGX_BUSY) -- each instance has max_conns: 502, as Nginx answers
        end
    else
        give(try, peer)
    end
    if peer.address == vip and peer.port == tonumber(var.server_port) then
        return refused(var, id, cluster, plain, peer.host .. ":" .. peer.port) -- the request came from there
    end
    if leaving then
        -- Nobody waits for this worker to follow a push. So it writes down what it gives, and looks once more whether the routes
        -- are still those: either it sees a push that came meanwhile, or whoever pushed sees the request.
        leaving()
        if not failure and shm:get("seq") ~= at then
            return routes.balance(cluster, plain, max_fails, fail_timeout, max_conns, slow, zone, method, key)
        end
    end
    answers(var, id, peer.version, "")
    local ok, err = set_current_peer(peer.host, peer.port)
    if not ok then
        ngx.log(ngx.ERR, "sluice: cluster ", cluster, ": ", peer.host, ":", peer.port, ": ", err)
        ngx.exit(ngx.ERROR)
    end
end

