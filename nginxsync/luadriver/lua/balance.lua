-- The balancer phase: who answers a request to a cluster.

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

