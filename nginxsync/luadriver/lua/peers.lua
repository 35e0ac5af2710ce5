-- Peers: the instances of one cluster, and which of them a request goes to.

local sets = {}  -- every set of peers by its rows: one that stays keeps its turn
local known = {} -- what was seen of each instance, by cluster, address and id: it outlives a change of the others, and counts on
                 -- every VIP

-- The requests in flight to each address, in this worker. They are counted apart from the routes: a request may outlive the row of
-- its instance. An address without a request is forgotten with its last set.
local loads = setmetatable({}, { __mode = "v" })

local function load_of(address)
    local load = loads[address]
    if not load then
        load = { n = 0, address = address }
        loads[address] = load
    end
    return load
end

-- state_of is what was seen of an instance: how many requests failed, when the last one did, and since when that counts
-- (ngx_http_upstream_rr_peer_t: fails, accessed, checked), and when the instance was new.
local function state_of(name, born)
    return known[name] or { fails = 0, accessed = 0, checked = 0, born = born }
end

local function group(list)
    list.n, list.turn, list.equal, list.total = #list, 0, true, 0
    for _, peer in ipairs(list) do
        list.equal = list.equal and peer.weight == list[1].weight
        list.total = list.total + peer.weight
    end
    return list
end

-- peers makes a set of the instances of one cluster in one scope: the same set when rows are those of one that there is. Each
-- instance has host, address (host without the brackets of IPv6), port, weight, id, version, backup, and state.
local function peers(rows, list)
    local set = sets[rows]
    if set then
        return set
    end
    local main, spare = {}, {}
    for _, peer in ipairs(list) do
        local into = peer.backup and spare or main
        into[#into + 1] = peer
        peer.load, peer.current = load_of(peer.host .. ":" .. peer.port), 0
    end
    local version, mixed = list[1] and list[1].version or "none", false
    for _, peer in ipairs(list) do
        mixed = mixed or peer.version ~= version
    end
    return { n = #list, first = list[1], main = group(main), spare = group(spare), version = version, mixed = mixed }
end

-- down reports whether an instance failed too often lately: until fail_timeout has passed since the last failure or the last look at
-- it, no request goes there; then one does.
local function down(state, try)
    return try.max_fails > 0 and state.fails >= try.max_fails and try.now - state.checked <= try.fail_timeout
end

-- open reports whether a request may go to the instance: it is of the version that the request began with, has less than max_conns
-- requests, and the request did not try it yet.
local function open(peer, try)
    return (not try.version or peer.version == try.version)
        and not (try.tried and try.tried[peer.state])
        and (try.max_conns == 0 or peer.load.n < try.max_conns)
end

-- usable is open without the instances that failed lately.
local function usable(peer, try)
    return open(peer, try) and not down(peer.state, try)
end

-- share is the weight of an instance, which grows from nothing while the instance is new.
local function share(peer, try)
    local age = try.now - peer.state.born
    if age < try.slow then
        return peer.weight * math.max(age / try.slow, 0.0001)
    end
    return peer.weight
end

-- smooth takes one turn by weight among the peers that may take it: each gains its share, and the one that has most gives back what
-- all gained.
local function smooth(group, may, try, filter)
    local best, total = nil, 0
    for i = 1, group.n do
        local peer = group[i]
        if may(peer, try) and (not filter or filter(peer)) then
            local weight = share(peer, try)
            peer.current = peer.current + weight
            total = total + weight
            if not best or peer.current > best.current then
                best = peer
            end
        end
    end
    if best then
        best.current = best.current - total
    end
    return best
end

local function any()
    return true
end

local MAX_STEPS = 20000 -- of a start in the middle of the turns

-- begin puts a set somewhere into its turns, so that the workers do not all begin with the same instance.
local begin_try = { now = math.huge, slow = 0 }
local function begin(group)
    group.begun = true
    if group.equal then
        group.turn = math.random(0, group.n - 1)
        return
    end
    for _ = 1, math.random(0, math.max(1, math.min(group.total, math.floor(MAX_STEPS / group.n))) - 1) do
        smooth(group, any, begin_try)
    end
end

-- round_robin takes turns smoothly by weight, among all or among those that the filter takes.
local function round_robin(group, may, try, filter)
    if group.n == 0 then
        return nil
    end
    if not group.begun then
        begin(group)
    end
    if group.equal and try.slow == 0 and not filter then
        for _ = 1, group.n do
            group.turn = group.turn % group.n + 1
            local peer = group[group.turn]
            if may(peer, try) then
                return peer
            end
        end
        return nil
    end
    return smooth(group, may, try, filter)
end

-- least_conn takes turns among the instances that have the fewest requests in flight for their weight.
local function least_conn(group, may, try)
    local least
    for i = 1, group.n do
        local peer = group[i]
        if may(peer, try) then
            local load = peer.load.n / share(peer, try)
            least = least and math.min(least, load) or load
        end
    end
    return least and round_robin(group, may, try, function(peer) return peer.load.n / share(peer, try) == least end)
end

-- draw draws one of the instances that may take a request, each by its weight. other is left out.
local function draw(group, may, try, other)
    local total = 0
    for i = 1, group.n do
        if group[i] ~= other and may(group[i], try) then
            total = total + share(group[i], try)
        end
    end
    local left = math.random() * total
    for i = 1, group.n do
        if group[i] ~= other and may(group[i], try) then
            left = left - share(group[i], try)
            if left < 0 then
                return group[i]
            end
        end
    end
end

local function random(group, may, try)
    return draw(group, may, try)
end

-- random_two draws two and takes the one that has fewer requests in flight for its weight.
local function random_two(group, may, try)
    local one = draw(group, may, try)
    local two = one and draw(group, may, try, one)
    if two and two.load.n / two.weight < one.load.n / one.weight then
        return two
    end
    return one
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
    local parts, out = expressions[text] or expression(text), {}
    if #parts == 1 and type(parts[1]) == "table" then
        return ngx.var[parts[1][1]] or ""
    end
    for i, part in ipairs(parts) do
        out[i] = type(part) == "string" and part or ngx.var[part[1]] or ""
    end
    return table.concat(out)
end

local no_address = "\0\0\0" -- of a client behind a unix socket, as ngx_http_upstream_ip_hash_pseudo_addr

local methods = {
    round_robin = round_robin, least_conn = least_conn, random = random, random_two = random_two,
    hash = plain_hash, consistent_hash = consistent_hash, ip_hash = ip_hash,
}

-- pick chooses the peer of a try, or nil: every instance of the version is full.
local function pick(set, try, method, key)
    local choose = methods[method]
    if method == "ip_hash" then
        local address = ngx.var.binary_remote_addr
        key = (#address == 4 or #address == 16) and address or no_address
    elseif key then
        key = evaluate(key)
        choose = key ~= "" and choose or round_robin
    end
    local main, spare = set.main, set.spare
    return main.n > 0 and (choose(main, usable, try, key) or key and round_robin(main, usable, try))
        or spare.n > 0 and (choose(spare, usable, try, key) or key and round_robin(spare, usable, try))
        -- All failed lately: one of them is tried all the same.
        or round_robin(main, open, try) or round_robin(spare, open, try)
end

local function failed(state)
    state.fails = state.fails + 1
    state.accessed = clock()
    state.checked = state.accessed
end

-- succeeded forgets the failures of an instance that answered a request which began after them and their time.
local function succeeded(state)
    if state.accessed < state.checked then
        state.fails = 0
    end
end

