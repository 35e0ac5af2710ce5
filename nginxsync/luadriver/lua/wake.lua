
-- What the workers say of themselves is in a dictionary of its own, by the number of the configuration that they run on and their
-- id: during a reload old and new workers have the same ids. One that the master starts anew takes the place of its predecessor.
local workers = ngx.shared.sluice_workers
local reload -- the number of this configuration

-- Workers wake each other when a push comes into force, so that none has to look all the time. Each has a UDP socket on the loopback
-- address, which Nginx watches for it. The peer of all of them is the hub, a socket that the master opens before it starts a worker
-- and that each worker can send by: the kernel drops what comes from elsewhere. Nothing depends on a message that arrives: a worker
-- compares with each request and looks at intervals, at short ones where there is no hub.
--
--   hub              of workers: file descriptor, port, and a secret by which a worker is told from others who send to the hub
--   wake=RELOAD=ID   of workers: process id and port of a worker
local open_hub, listen, listens, wake, pause_for
do
    ffi.cdef [[
        typedef struct { uint16_t family, port; uint8_t host[4]; char zero[8]; } sluice_address;
        int sluice_socket(int family, int type, int protocol) __asm__("socket");
        int sluice_bind(int fd, const sluice_address *to, unsigned int bytes) __asm__("bind");
        int sluice_name(int fd, sluice_address *to, unsigned int *bytes) __asm__("getsockname");
        int sluice_close(int fd) __asm__("close");
        long sluice_send(int fd, const char *text, size_t bytes, int flags, const sluice_address *to, unsigned int size)
            __asm__("sendto");
        long sluice_receive(int fd, char *text, size_t bytes, int flags, sluice_address *from, unsigned int *size)
            __asm__("recvfrom");
    ]]
    local AF_INET, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_DONTWAIT = 2, 2, 0x800, 0x80000, 0x40 -- of Linux
    local FOREVER = 2 ^ 31 - 1 -- milliseconds
    local NO_ANSWER = "0"

    local hub, port, secret -- ports are in the order of the network
    local address, size = ffi.new("sluice_address"), ffi.new("unsigned int[1]")
    local message = ffi.new("char[128]")
    local running, failures = false, 0
    local waiters

    local function loopback(at)
        address.family, address.port = AF_INET, at
        address.host[0], address.host[1], address.host[2], address.host[3] = 127, 0, 0, 1
        return address
    end

    -- port_of is the port of a socket on the loopback address, or nil.
    local function port_of(fd)
        size[0] = ffi.sizeof(address)
        if ffi.C.sluice_name(fd, address, size) ~= 0 or address.family ~= AF_INET or address.host[0] ~= 127 then
            return nil
        end
        return address.port
    end

    -- open_hub runs in the master. A reload keeps the hub, so that the workers of before hear too.
    function open_hub()
        if ffi.os ~= "Linux" or config.alone then
            return
        end
        local fd, at, word = (workers:get("hub") or ""):match("^(%d+) (%d+) (%x+)$")
        if fd and port_of(tonumber(fd)) == tonumber(at) then
            hub, port, secret = tonumber(fd), tonumber(at), word
            return
        end
        local file = io.open("/dev/urandom", "rb")
        local random = file and file:read(16)
        if file then
            file:close()
        end
        fd = ffi.C.sluice_socket(AF_INET, SOCK_DGRAM + SOCK_NONBLOCK + SOCK_CLOEXEC, 0)
        at = random and fd >= 0 and ffi.C.sluice_bind(fd, loopback(0), ffi.sizeof(address)) == 0 and port_of(fd)
        if at then
            hub, port, secret = fd, at, ngx.md5(random)
            workers:set("hub", hub .. " " .. port .. " " .. secret)
        elseif fd >= 0 then
            ffi.C.sluice_close(fd)
        end
    end

    local function name()
        return "wake=" .. reload .. "=" .. ngx.worker.id()
    end

    local function send(to, text)
        ffi.C.sluice_send(hub, text, #text, MSG_DONTWAIT, loopback(to), ffi.sizeof(address))
    end

    -- own_port is the port of this worker, or nil: it does not listen, or no worker has read yet that it does.
    local function own_port()
        local pid, at = (running and workers:get(name()) or ""):match("^(%d+) (%d+)$")
        return tonumber(pid) == ngx.worker.pid() and tonumber(at) or nil
    end

    -- register reads from the hub which workers listen: so many messages at a time, since anyone on the machine can send to it.
    local function register()
        for _ = 1, 256 do
            size[0] = ffi.sizeof(address)
            local n = ffi.C.sluice_receive(hub, message, 128, MSG_DONTWAIT, address, size)
            if n < 0 then
                return
            end
            local key, pid, word = ffi.string(message, n):match("^(wake=%d+=%d+) (%d+) (%x+)$")
            if word == secret and address.host[0] == 127 then
                workers:set(key, pid .. " " .. address.port)
            end
        end
    end

    -- listens reports whether a push wakes this worker. It has the worker listen that does not, a few times, and gives up where
    -- what it sends does not arrive.
    function listens()
        if hub and not running and failures < 3 and not ngx.worker.exiting() then
            ngx.timer.at(0, listen)
        elseif hub and running and not own_port() then
            register()
            failures = failures + (own_port() and 0 or 1)
        end
        return hub ~= nil and failures < 3
    end

    -- wake wakes the other workers, or in a worker that ends itself, so that it does not listen any more. Each of the others answers.
    function wake()
        if not hub then
            return
        end
        register() -- what came since
        local own = own_port()
        if ngx.worker.exiting() then
            if own then
                send(own, NO_ANSWER)
            end
            return
        end
        for _, key in ipairs(workers:get_keys(0)) do
            local value = key:sub(1, 5) == "wake=" and key ~= name() and workers:get(key)
            local pid, at = (value or ""):match("^(%d+) (%d+)$")
            if pid and ended(tonumber(pid)) then
                workers:delete(key)
            elseif pid then
                send(tonumber(at), own and tostring(own) or NO_ANSWER)
            end
        end
    end

    -- pause_for waits until another worker has answered, or for so many seconds.
    function pause_for(seconds)
        if not own_port() then
            ngx.sleep(math.min(seconds, 0.002))
            return
        end
        waiters = waiters or require("ngx.semaphore").new()
        waiters:wait(seconds)
    end

    -- listen runs in a timer of its own: it calls heard for each message, until the worker ends.
    function listen(premature)
        if premature or running then
            return
        end
        running = true
        local socket = ngx.socket.udp()
        local ok = socket:setpeername("127.0.0.1", bor(lshift(bit.band(port, 255), 8), bit.rshift(port, 8)))
        ok = ok and socket:send(name() .. " " .. ngx.worker.pid() .. " " .. secret)
        if ok then
            register()
            socket:settimeout(FOREVER)
            routes.heard() -- a push may have come before
        end
        while ok and not ngx.worker.exiting() do
            local text, err = socket:receive(128)
            if text then
                routes.heard()
                local waiting = waiters and -waiters:count() or 0
                if waiting > 0 then
                    waiters:post(waiting)
                end
                if text ~= NO_ANSWER then
                    send(tonumber(text), NO_ANSWER)
                end
            elseif err ~= "timeout" then
                break
            end
        end
        socket:close()
        if own_port() then
            workers:delete(name())
        end
        running = false
        failures = failures + 1
    end
end
