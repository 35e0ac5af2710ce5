
-- A push of many rows reads and writes slots without a Lua string for each: by what resty.core's methods of a dictionary call.
local A, B = 97, 98 -- the slots "a:" and "b:"
local get_slot, put_slot, delete_slot
do
    local SAFE_ADD, SET, SAFE_SET = 5, 0, 4
    local TEXT, NOTHING = 4, 0 -- types of values
    local zone = ffi.C.ngx_http_lua_ffi_shdict_udata_to_zone(shm[1])
    local slot_key, slot_room = ffi.new("uint8_t[256]"), 256
    local value_room = 4096
    local value_bytes = ffi.new("uint8_t[?]", value_room)
    local value_at, value_size = ffi.new("unsigned char *[1]"), ffi.new("size_t[1]")
    local value_type, value_of, value_stale = ffi.new("int[1]"), ffi.new("int[1]"), ffi.new("int[1]")
    local value_number, problem, forced = ffi.new("double[1]"), ffi.new("char *[1]"), ffi.new("int[1]")

    local function slot_of(slot, key, n)
        if n + 2 > slot_room then
            slot_key, slot_room = ffi.new("uint8_t[?]", 2 * n), 2 * n
        end
        slot_key[0], slot_key[1] = slot, 58 -- ":"
        ffi.copy(slot_key + 2, key, n)
        return slot_key
    end

    -- get_slot returns the bytes of a slot, how many they are, and the push that wrote them, until the next call; or nil.
    function get_slot(slot, key, n)
        while true do
            value_at[0], value_size[0] = value_bytes, value_room
            if ffi.C.ngx_http_lua_ffi_shdict_get(zone, slot_of(slot, key, n), n + 2, value_type, value_at, value_size, value_number,
                value_of, 0, value_stale, problem) ~= 0 or value_type[0] ~= TEXT then
                return nil
            end
            local size = tonumber(value_size[0])
            if value_at[0] == value_bytes then
                return value_bytes, size, value_of[0]
            end
            ffi.C.free(value_at[0]) -- it did not fit
            value_room = 2 * size
            value_bytes = ffi.new("uint8_t[?]", value_room)
        end
    end

    -- put_slot writes a slot, or one that must not be there yet, or returns nothing and why.
    function put_slot(slot, key, n, value, size, seq, fresh)
        if ffi.C.ngx_http_lua_ffi_shdict_store(zone, fresh and SAFE_ADD or SAFE_SET, slot_of(slot, key, n), n + 2, TEXT, value, size, 0,
            0, seq, problem, forced) == 0 then
            return true
        end
        return nil, ffi.string(problem[0])
    end

    function delete_slot(slot, key, n)
        ffi.C.ngx_http_lua_ffi_shdict_store(zone, SET, slot_of(slot, key, n), n + 2, NOTHING, nil, 0, 0, 0, 0, problem, forced)
    end
end
