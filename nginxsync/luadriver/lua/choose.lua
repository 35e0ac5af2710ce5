
-- The VIP of a request is the address that it came to, unless a peer that the rules trust names the VIP of its own caller, or, on an
-- address that is no VIP, the header or cookie of the rules names one.
local choose -- sets $sluice_vip; returns what is wrong with the VIP that the request names
do
    ffi.cdef [[
        size_t sluice_ntop(const char *from, unsigned char *to, size_t bytes) __asm__("ngx_inet6_ntop");
    ]]
    local MEMBER = "sluice-vip"
    local MOST_MEMBERS, MOST_BYTES = 64, 8192 -- W3C Baggage, section 3.3.2
    local trusting = (" " .. config.select .. " "):find(" peers ", 1, true) ~= nil
    local header, cookie = config.select:match("header (%S+)"), config.select:match("cookie (%S+)")
    local written = ffi.new("unsigned char[64]")

    -- address_of is the address as Nginx writes it, or nil for what is none.
    local function address_of(text)
        local bytes = bytes_of(text)
        if not bytes or #bytes == 4 then
            return bytes and text
        end
        if bytes:sub(1, 12) == ("\0"):rep(10) .. "\255\255" then
            return table.concat({ bytes:byte(13, 16) }, ".")
        end
        return ffi.string(written, ffi.C.sluice_ntop(bytes, written, 64))
    end

    local function quoted(text)
        return '"' .. text:sub(1, 64):gsub('[^ !#-~]', "?") .. (#text > 64 and '..."' or '"')
    end

    local function bad(source, text)
        return { status = 400, reason = "bad-vip; from=" .. source, text = source .. ": " .. text .. "\n" }
    end

    -- values_of are the values of a header that are not empty.
    local function values_of(headers, name)
        local found, out = headers[name], {}
        for _, value in ipairs(type(found) == "table" and found or { found }) do
            if value ~= "" then
                out[#out + 1] = value
            end
        end
        return out
    end

    -- value_of is the value of a baggage member, after its "=", or nil for what is none: octets of the grammar, some of them
    -- percent-encoded, then properties.
    local function value_of(text)
        local value = text:match("^[ \t]*([^;]-)[ \t]*$") or text:match("^[ \t]*([^;]-)[ \t]*;")
        if not value or value:find("[^]-~!#-+--:<-[]") or value:gsub("%%%x%x", ""):find("%", 1, true) then
            return nil
        end
        return (value:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
    end

    -- members_of are the members of a baggage: the values of that with the VIP (false for what is no value), and the others.
    local function members_of(headers)
        local own, others = {}, {}
        for _, list in ipairs(values_of(headers, "baggage")) do
            for text in list:gmatch("[^,]+") do
                local member = text:match("^[ \t]*(.-)[ \t]*$")
                if member:match("^[^ \t=;]*") == MEMBER then
                    local value = member:match("^[^ \t=;]*[ \t]*=(.*)$")
                    own[#own + 1] = value and value_of(value) or false
                elseif member ~= "" then
                    others[#others + 1] = member
                end
            end
        end
        return own, others
    end

    -- baggage is what instances get: the VIP first, and so many of the other members that a library of theirs does not drop all.
    local function baggage(vip, others)
        local out, bytes = { MEMBER .. "=" .. vip }, #MEMBER + 1 + #vip
        for _, member in ipairs(others) do
            bytes = bytes + 1 + #member
            if #out == MOST_MEMBERS or bytes > MOST_BYTES then
                break
            end
            out[#out + 1] = member
        end
        return table.concat(out, ",")
    end

    -- named is the VIP that a peer names, or nil and what is wrong with it.
    local function named(headers, own)
        local vip
        local function take(text, source)
            local address = text and address_of(text)
            if not address then
                return bad(source, (text and quoted(text) or "the value") .. " is no address: want one of IPv4 or IPv6")
            elseif vip and vip ~= address then
                return bad(source, address .. " and " .. vip .. ": want one VIP")
            end
            vip = address
        end
        for _, text in ipairs(values_of(headers, "x-env-vip")) do
            local problem = take(text, "X-Env-VIP")
            if problem then
                return nil, problem
            end
        end
        for _, text in ipairs(own) do
            local problem = take(text, "baggage " .. MEMBER)
            if problem then
                return nil, problem
            end
        end
        return vip
    end

    local function is_vip(address)
        return fetch(address) ~= nil or pooled(address)
    end

    -- selected is the VIP that a header or cookie names by its address or its task, or nil and what is wrong with it. The name is any
    -- client's: what it does not lead to is not kept.
    local function selected(text, source)
        local vip = address_of(text)
        if vip then
            if not consistent(is_vip, vip) then
                return nil, bad(source, quoted(text) .. " is no VIP")
            end
            return vip
        end
        if #text > 63 or not text:find("^%w[%w._-]*$") or not text:find("%w$") then
            return nil, bad(source, quoted(text) .. " is neither a VIP nor a task")
        end
        local note = consistent(fetch, "+" .. text .. " =")
        if not note then
            return nil, { status = 410, reason = "no-lease; task=" .. text, text = "Task " .. text .. " has no VIP.\n" }
        end
        return note:match("^l (%S+)")
    end

    -- selection is the value of the header or cookie, or nil and what is wrong with it.
    local function selection(headers)
        if cookie then
            local text = ngx.var["cookie_" .. cookie]
            return text ~= "" and text or nil
        end
        local values = values_of(headers, header:lower())
        for _, value in ipairs(values) do
            if value ~= values[1] then
                return nil, bad(header, quoted(value) .. " and " .. quoted(values[1]) .. ": want one value")
            end
        end
        return values[1]
    end

    function choose(var)
        if config.select == "" then
            return
        end
        local here = var.server_addr
        local headers = ngx.req.get_headers(0)
        local vip, problem, own, others
        if trusting then
            own, others = members_of(headers)
            if var.sluice_peer == "1" then
                vip, problem = named(headers, own)
            end
        end
        if (header or cookie) and not vip and not problem and not consistent(is_vip, here) then
            var.sluice_vary = cookie and "Cookie" or header
            local text
            text, problem = selection(headers)
            if text then
                vip, problem = selected(text, cookie and "cookie " .. cookie or header)
            end
        end
        var.sluice_vip = vip or here
        if trusting then
            var.sluice_baggage = baggage(vip or here, others)
        end
        return problem
    end
end

-- enter sets the path of the location that answers in the place of the tree, if one does. A subrequest belongs to a request that was let in.
function routes.enter()
    refresh()
    local var, inner = ngx.var, ngx.is_subrequest
    local problem, vip = choose(var), vip_of(var)
    if not inner then
        entered, entered_vip = id_of(get_request()), vip -- done takes it back: an id may come again
    end
    local notice = problem or notice_of(vip)
    if not notice or inner then
        return
    end
    var.sluice_version, var.sluice_reason, var.sluice_text = "none", notice.reason, notice.text
    local answers = notice.status == 400 and "bad" or "gone"
    ngx.req.set_uri(".sluice/" .. (is_grpc(var) and "grpc-" or "") .. answers)
end
