
-- The methods: which instance of a set a request goes to.

local open, pick, method_of
do
    -- turns_of is where the turns of a group or of its member are counted: by all workers where the upstream has a zone. member is 0 for
    -- the group itself.
    local function turns_of(holder, group, member, zone)
        if not zone then
            return holder
        end
        local turns = holder.turns
        if not turns then
            turns = { name = group.rows .. "\n" .. member }
            holder.turns = turns
        end
        return common(turns) or holder
    end

    -- down reports whether an instance failed too often lately: until fail_timeout has passed since the last failure or the last look at
    -- it, no request goes there; then one does.
    local function down(state, try)
        local health = seen(state, try.zone)
        return try.max_fails > 0 and health.fails >= try.max_fails and try.now - health.checked <= try.fail_timeout
    end

    -- open reports whether a request may go to the instance: it is of the version that the request began with, has less than max_conns
    -- requests, and the request did not try it yet.
    function open(peer, try)
        return (not try.version or peer.version == try.version)
            and not (try.tried and try.tried[peer.state])
            and (try.max_conns == 0 or conns(peer.state, try.zone) < try.max_conns)
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
        local best, best_turns, total = nil, nil, 0
        for i = 1, group.n do
            local peer = group[i]
            if may(peer, try) and (not filter or filter(peer)) then
                local weight, turns = share(peer, try), turns_of(peer, group, i, try.zone)
                turns.current = turns.current + weight
                total = total + weight
                if not best or turns.current > best_turns.current then
                    best, best_turns = peer, turns
                end
            end
        end
        if best then
            best_turns.current = best_turns.current - total
        end
        return best
    end

    local function any()
        return true
    end

    local MAX_STEPS = 20000 -- of a start in the middle of the turns

    -- begin puts a set somewhere into its turns, so that the workers do not all begin with the same instance, nor the sets that take the
    -- place of one another.
    local begin_try = { now = math.huge, slow = 0 }
    local function begin(group, turns, zone)
        turns.begun, begin_try.zone = 1, zone
        if group.equal then -- each of the first ones has given back what all gained
            local taken = math.random(0, group.n - 1)
            for i = 1, group.n do
                turns_of(group[i], group, i, zone).current = group[i].weight * (i > taken and taken or taken - group.n)
            end
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
        local turns = turns_of(group, group, 0, try.zone)
        if turns.begun == 0 then
            begin(group, turns, try.zone)
        end
        return smooth(group, may, try, filter)
    end

    -- least_conn takes turns among the instances that have the fewest requests in flight for their weight.
    local function least_conn(group, may, try)
        local least
        for i = 1, group.n do
            local peer = group[i]
            if may(peer, try) then
                local load = conns(peer.state, try.zone) / share(peer, try)
                least = least and math.min(least, load) or load
            end
        end
        return least and round_robin(group, may, try, function(peer)
            return conns(peer.state, try.zone) / share(peer, try) == least
        end)
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
        if two and conns(two.state, try.zone) / two.weight < conns(one.state, try.zone) / one.weight then
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

    -- method_of is the method of a request, and its key where there is one.
    function method_of(method, key)
        if method == "ip_hash" then
            local address = ngx.var.binary_remote_addr
            return ip_hash, (#address == 4 or #address == 16) and address or no_address
        elseif key then
            key = evaluate(key)
            return key ~= "" and methods[method] or round_robin, key
        end
        return methods[method]
    end

    -- pick chooses the peer of a try, or nil: every instance of the version is full.
    function pick(set, try, choose, key)
        local main, spare = set.main, set.spare
        return main.n > 0 and (choose(main, usable, try, key) or key and round_robin(main, usable, try))
            or spare.n > 0 and (choose(spare, usable, try, key) or key and round_robin(spare, usable, try))
            -- All failed lately: one of them is tried all the same.
            or round_robin(main, open, try) or round_robin(spare, open, try)
    end
end
