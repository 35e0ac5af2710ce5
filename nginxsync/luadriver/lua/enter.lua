
-- The beginning of a request: whether the address takes requests at all.

ffi.cdef [[
    int sluice_pton(int family, const char *text, void *to) __asm__("inet_pton");
]]
local FAMILIES = { [4] = 2, [16] = ({ Linux = 10, OSX = 30 })[jit.os] or 28 } -- AF_INET, AF_INET6
local raw = ffi.new("char[16]")

-- bytes_of is an address in network order, so that addresses of one family compare as their bytes do; nil for other texts.
local function bytes_of(text)
    if not text:find("^[%x:.]+$") then
        return nil
    end
    local size = text:find(":", 1, true) and 16 or 4
    if ffi.C.sluice_pton(FAMILIES[size], text, raw) ~= 1 then
        return nil
    end
    return ffi.string(raw, size)
end

-- pooled reports whether the address is in a pool.
function pooled(vip)
    local pools = note_of("*")
    local address = pools and bytes_of(vip)
    if not address then
        return false
    end
    if not pools.ranges then
        pools.ranges = {}
        for _, range in ipairs(pools) do
            pools.ranges[#pools.ranges + 1] = { bytes_of(range[1]), bytes_of(range[2]) }
        end
    end
    for _, range in ipairs(pools.ranges) do
        if #range[1] == #address and range[1] <= address and address <= range[2] then
            return true
        end
    end
    return false
end

-- made is what is said on an address that takes no requests, or false for one that does.
local function made(vip)
    local there = scope_of(vip)
    if not there then
        if not pooled(vip) then
            return false
        end
        return { reason = "no-lease", text = "No task has the address " .. vip .. ".\n" }
    end
    local note = note_of(vip)
    -- A row besides the note is a cluster that the address still serves.
    if not note or not note.at or there.view:match("^%d+") ~= "1" then
        return false
    end
    local at = os.date("!%Y-%m-%dT%H:%M:%SZ", note.at)
    local reason = { "ended", "at=" .. at }
    local task = "Another task"
    if note.task ~= "-" then
        reason[3] = "task=" .. note.task
        task = "Task " .. note.task
    end
    local shown = {}
    for _, v in ipairs(note.versions) do
        shown[#shown + 1] = v[1] .. " " .. v[2]
        reason[#reason + 1] = "version=" .. v[1] .. ":" .. v[2]
    end
    return { reason = table.concat(reason, "; "), text = "No task has the address " .. vip .. " now. " .. task ..
        (shown[1] and " (" .. table.concat(shown, ", ") .. ")" or "") .. " had it until " .. at .. ".\n" }
end

-- notices are what is said, by address, of the push. An address may be the word of a client: so there are not too many.
local notices, notices_of, noticed = {}, nil, 0

local function notice_of(vip)
    if notices_of ~= at or noticed > 10000 then
        notices, notices_of, noticed = {}, at, 0
    end
    local notice = notices[vip]
    if notice == nil then
        notice = consistent(made, vip)
        if notices_of == at then
            notices[vip], noticed = notice, noticed + 1
        end
    end
    return notice
end

local function is_grpc(var)
    local kind = var.content_type
    return kind and kind:sub(1, 16) == "application/grpc"
end

