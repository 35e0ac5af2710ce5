-- Peers: the instances of one cluster, and what was seen of them.

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

-- state_of is what was seen of an instance: how many requests it has, how many failed, when the last one did, and since when that
-- counts (ngx_http_upstream_rr_peer_t: conns, fails, accessed, checked), and when the instance was new.
local function state_of(name, born)
    return known[name] or { name = name, n = 0, fails = 0, accessed = 0, checked = 0, born = born }
end

-- seen is what all workers have seen of an instance where the upstream has a zone, else what this one has.
local function seen(state, zone)
    return zone and common(state) or state
end

-- conns is how many requests an instance has in its cluster, on all VIPs.
local function conns(state, zone)
    local record = zone and common(state)
    return record and record.conns or state.n
end

local function group(list, rows)
    list.n, list.begun, list.equal, list.total = #list, 0, true, 0
    list.rows = rows
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
        peer.load, peer.current = load_of(peer.host .. ":" .. peer.port), 0 -- current: see smooth
    end
    local version, mixed = list[1] and list[1].version or "none", false
    for _, peer in ipairs(list) do
        mixed = mixed or peer.version ~= version
    end
    return { n = #list, first = list[1], main = group(main, rows), spare = group(spare, spare[1] and rows .. "\nspare"),
        version = version, mixed = mixed }
end

local function count_failure(health)
    health.fails = health.fails + 1
    health.accessed = clock()
    health.checked = health.accessed
end

local function failed(state, zone)
    local health = seen(state, zone)
    if health == state then
        return count_failure(state)
    end
    return exclusive(count_failure, health)
end

-- succeeded forgets the failures of an instance that answered a request which began after them and their time.
local function succeeded(state, zone)
    local health = seen(state, zone)
    if health.fails > 0 and health.accessed < health.checked then
        health.fails = 0
    end
end

