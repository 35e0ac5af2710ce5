-- Peers: the instances of one cluster, and which of them a request goes to.

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

