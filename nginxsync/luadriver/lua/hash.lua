-- The choices of Nginx's modules hash and ip_hash, so that a key goes to the instance that Nginx itself
-- would choose from the same servers in the same order (ngx_http_upstream_hash_module.c,
-- ngx_http_upstream_ip_hash_module.c).

local bit = require "bit"
local band, bxor, rshift = bit.band, bit.bxor, bit.rshift

local consistent_hash, plain_hash, ip_hash
do
    local MAX_TRIES = 20      -- both modules take turns after so many
    local POINTS = 160        -- of a consistent hash, for each unit of weight
    local MAX_POINTS = 400000 -- of a ring: above, the weights are reduced

    local crc_table = ffi.new("uint32_t[256]")
    for i = 0, 255 do
        local c = i
        for _ = 1, 8 do
            c = band(c, 1) == 1 and bxor(rshift(c, 1), 0xedb88320) or rshift(c, 1)
        end
        crc_table[i] = c
    end

    local function crc_step(crc, byte)
        return bxor(tonumber(crc_table[band(bxor(crc, byte), 0xff)]), rshift(crc, 8))
    end

    local function crc_text(crc, text)
        for i = 1, #text do
            crc = crc_step(crc, text:byte(i))
        end
        return crc
    end

    -- by_value sorts n points by their values, and keeps the order of equal ones: two passes of 16 bits.
    local function by_value(values, owners, n)
        local v, o = ffi.new("uint32_t[?]", n), ffi.new("uint32_t[?]", n)
        for pass = 0, 1 do
            local shift, counts = pass * 16, ffi.new("uint32_t[65537]")
            for i = 0, n - 1 do
                local at = band(rshift(values[i], shift), 0xffff) + 1
                counts[at] = counts[at] + 1
            end
            for i = 1, 65536 do
                counts[i] = counts[i] + counts[i - 1]
            end
            for i = 0, n - 1 do
                local digit = band(rshift(values[i], shift), 0xffff)
                local at = counts[digit]
                counts[digit] = at + 1
                v[at], o[at] = values[i], owners[i]
            end
            values, v, owners, o = v, values, o, owners
        end
        return values, owners
    end

    -- ring holds the points of a consistent hash: each instance has 160 for each unit of its weight.
    local function ring(group)
        local total, divisor = 0, 1
        for i = 1, group.n do
            total = total + group[i].weight
        end
        if total * POINTS > MAX_POINTS then
            divisor = total * POINTS / MAX_POINTS
        end
        local n = 0
        for i = 1, group.n do
            n = n + math.max(1, math.floor(group[i].weight / divisor)) * POINTS
        end
        local values, owners = ffi.new("uint32_t[?]", n), ffi.new("uint32_t[?]", n)
        local at = 0
        for i = 1, group.n do
            local peer = group[i]
            local base = crc_text(crc_step(crc_text(0xffffffff, peer.host), 0), tostring(peer.port))
            local value = 0
            for _ = 1, math.max(1, math.floor(peer.weight / divisor)) * POINTS do
                local crc = crc_step(base, band(value, 0xff))
                crc = crc_step(crc, band(rshift(value, 8), 0xff))
                crc = crc_step(crc, band(rshift(value, 16), 0xff))
                crc = crc_step(crc, rshift(value, 24))
                value = bxor(crc, 0xffffffff)
                values[at], owners[at] = value, i
                at = at + 1
            end
        end
        values, owners = by_value(values, owners, n)
        local last = 0
        for i = 1, n - 1 do
            if values[i] ~= values[last] then
                last = last + 1
                values[last], owners[last] = values[i], owners[i]
            end
        end
        return { values = values, owners = owners, n = last + 1 }
    end

    -- consistent_hash chooses the instance of the first point at or after the key's.
    function consistent_hash(group, usable, try, key)
        local points = group.ring
        if not points then
            points = ring(group)
            group.ring = points
        end
        local value, low, high = ngx.crc32_long(key), 0, points.n
        while low < high do
            local middle = rshift(low + high, 1)
            if points.values[middle] < value then
                low = middle + 1
            else
                high = middle
            end
        end
        for i = 0, MAX_TRIES do
            local peer = group[points.owners[(low + i) % points.n]]
            if usable(peer, try) then
                return peer
            end
        end
    end

    -- at is the instance that owns a number below the sum of all weights.
    local function at(group, w)
        if group.equal then
            return group[math.floor(w / group[1].weight) + 1]
        end
        for i = 1, group.n do
            w = w - group[i].weight
            if w < 0 then
                return group[i]
            end
        end
    end

    -- plain_hash is "hash" without "consistent".
    function plain_hash(group, usable, try, key)
        local sum = 0
        for again = 0, MAX_TRIES do
            local crc = ngx.crc32_long(again > 0 and again .. key or key)
            sum = sum + band(rshift(crc, 16), 0x7fff)
            local peer = at(group, sum % group.total)
            if usable(peer, try) then
                return peer
            end
        end
    end

    -- ip_hash chooses by the first three bytes of an IPv4 address, or by the whole IPv6 address.
    function ip_hash(group, usable, try, address)
        local n = #address == 4 and 3 or #address
        local value = 89
        for _ = 0, MAX_TRIES do
            for i = 1, n do
                value = (value * 113 + address:byte(i)) % 6271
            end
            local peer = at(group, value % group.total)
            if usable(peer, try) then
                return peer
            end
        end
    end
end
