-- Requests in flight by address, over all workers: what a drain waits for.

local answered = 0 -- the last question that this worker answered

local function row(seq)
    return "told=" .. seq .. "=" .. reload .. "=" .. ngx.worker.id()
end

-- tell answers the questions that are new to this worker. It runs in each tick and when another worker asks.
function routes.tell()
    local asked = workers:get("asked") or 0
    for seq = math.max(answered, asked - 100) + 1, asked do
        local text = workers:get("ask=" .. seq)
        if text then
            local out = {}
            for address in text:gmatch("%S+") do
                local load = loads[address]
                out[#out + 1] = load and load.n or 0
            end
            workers:set(row(seq), table.concat(out, " "), 60)
        end
    end
    answered = asked
end

-- leave runs in a worker that takes no more requests, and makes it write down with each request that ends what is left.
function routes.leave()
    local key = "leaving=" .. reload .. "=" .. ngx.worker.id() .. "=" .. ngx.worker.pid()
    leaving = function()
        local out = { ngx.worker.pid() }
        for address, load in pairs(loads) do
            if load.n > 0 then
                out[#out + 1] = address .. "=" .. load.n
            end
        end
        if #out > 1 then
            workers:set(key, table.concat(out, " "))
        else
            workers:delete(key)
        end
    end
    leaving()
end

-- left is what the workers that end have in flight: a table by address for each of them.
local function left()
    local out = {}
    for _, key in ipairs(workers:get_keys(0)) do
        local value = key:sub(1, 8) == "leaving=" and workers:get(key)
        local pid = value and tonumber(value:match("^%d+"))
        if pid and ended(pid) then
            workers:delete(key) -- it was killed: its requests have ended
        elseif pid then
            local counts = { pid = pid }
            for address, n in value:gmatch(" (%S+)=(%d+)") do
                counts[address] = n
            end
            out[#out + 1] = counts
        end
    end
    return out
end

-- inflight answers how many requests each worker has in flight to the addresses of the body, one a line, in their order: a line
-- "worker SLOT PID N N …", with "?" for the numbers of a worker that did not tell within two seconds, and "leaving PID N N …" for
-- each worker that only ends its requests.
function routes.inflight()
    local addresses = {}
    for address in body():gmatch("%S+") do
        addresses[#addresses + 1] = address
    end
    local seq = workers:incr("asked", 1, 0)
    local ok, err = workers:safe_set("ask=" .. seq, table.concat(addresses, "\n"), 60)
    if not ok then
        return answer(507, err)
    end
    routes.tell()
    wake()
    local out, till = {}, clock() + 2
    repeat
        local silent = false
        out = {}
        for _, key in ipairs(workers:get_keys(0)) do
            local value = key:find("^%d+:%d+$") and workers:get(key)
            local pid = value and tonumber(value:match("^%d+"))
            if pid and not ended(pid) then
                local number, slot = key:match("^(%d+):(%d+)$")
                local told = workers:get("told=" .. seq .. "=" .. number .. "=" .. slot)
                silent = silent or not told
                out[#out + 1] = "worker " .. slot .. " " .. pid .. " " .. (told or "?")
            end
        end
        local late = silent and clock() < till
        if late then
            pause_for(QUICK)
        end
    until not late
    for _, counts in ipairs(left()) do -- last: a worker writes its own before it is no more among the others
        local numbers = {}
        for i, address in ipairs(addresses) do
            numbers[i] = counts[address] or 0
        end
        out[#out + 1] = "leaving " .. counts.pid .. " " .. table.concat(numbers, " ")
    end
    workers:delete("ask=" .. seq)
    answer(200, table.concat(out, "\n"))
end

