
-- What the workers have in common of an upstream with a zone, as in ngx_http_upstream_zone_module: failures of an instance and the
-- requests that it has, and the turns of a set. It is in memory that the master maps and the workers inherit. As in Nginx, the workers
-- of each configuration begin with none.
--
-- A record is found by the sum of its name, in one of the WAYS places of a bucket. Where all are taken, a new one takes the place of
-- the one that was not used for longest, of those without requests. So nothing has to be told which instances are gone.

local common, add_conns, exclusive, clear_column
do
    ffi.cdef [[
        typedef struct { uint32_t high, low; double used, conns, fails, accessed, checked, current, begun; } sluice_record;
        typedef struct { uintptr_t *lock; char rest[248]; } sluice_mutex; /* ngx_shmtx_t begins so, and zeros have no semaphore */
        void *sluice_mmap(void *at, size_t bytes, int protection, int flags, int fd, long offset) __asm__("mmap");
        int sluice_munmap(void *at, size_t bytes) __asm__("munmap");
        int sluice_yield(void) __asm__("sched_yield");
        uintptr_t sluice_trylock(sluice_mutex *mutex) __asm__("ngx_shmtx_trylock");
        void sluice_unlock(sluice_mutex *mutex) __asm__("ngx_shmtx_unlock");
        uintptr_t sluice_force_unlock(sluice_mutex *mutex, int pid) __asm__("ngx_shmtx_force_unlock");
    ]]
    local WAYS, BUCKETS = 8, 4096
    local PROT_READ_WRITE, MAP_SHARED, MAP_ANONYMOUS = 3, 1, jit.os == "Linux" and 0x20 or 0x1000
    local count = ngx.worker.count()
    local own -- the column of this worker

    local taken_at, records_at = 64, 64 + BUCKETS -- the lock has a cache line of its own
    local columns_at = records_at + WAYS * BUCKETS * ffi.sizeof("sluice_record")
    local bytes = columns_at + WAYS * BUCKETS * count * 4
    local mapped = ffi.C.sluice_mmap(nil, bytes, PROT_READ_WRITE, MAP_SHARED + MAP_ANONYMOUS, -1, 0)
    local memory, taken, records, columns -- taken says of each bucket whether it has a record
    local mutex = ffi.new("sluice_mutex")
    if ffi.cast("intptr_t", mapped) ~= -1 then
        memory = ffi.gc(ffi.cast("char *", mapped), function(at) ffi.C.sluice_munmap(at, bytes) end) -- with this configuration
        mutex.lock = ffi.cast("uintptr_t *", memory)
        taken = ffi.cast("uint8_t *", memory + taken_at)
        records = ffi.cast("sluice_record *", memory + records_at)
        columns = ffi.cast("int32_t *", memory + columns_at)
    else
        ngx.log(ngx.ERR, "sluice: no memory that the workers share: each one counts on its own")
    end

    local inside = false

    local function enter_section()
        local turns = 0
        while ffi.C.sluice_trylock(mutex) == 0 do
            turns = turns + 1
            if turns % 100 == 0 then
                local owner = tonumber(mutex.lock[0])
                if owner ~= 0 and ended(owner) then
                    ffi.C.sluice_force_unlock(mutex, owner)
                end
                ffi.C.sluice_yield()
            end
        end
        inside = true
    end

    -- exclusive calls a function while no other worker is in one that it calls so.
    function exclusive(f, a, b, c, d)
        if inside or not memory then
            return f(a, b, c, d)
        end
        enter_section()
        local ok, result = pcall(f, a, b, c, d)
        inside = false
        ffi.C.sluice_unlock(mutex)
        if not ok then
            error(result, 0)
        end
        return result
    end

    -- take_place finds the place of a sum, or makes a record without anything there; nil where all have requests.
    local function take_place(high, low)
        local bucket, free = band(low, BUCKETS - 1), nil
        local first = bucket * WAYS
        for place = first, first + WAYS - 1 do
            local record = records[place]
            if record.high == high and record.low == low then
                return place
            elseif record.conns == 0 and (not free or record.used < records[free].used) then
                free = place
            end
        end
        if free then
            local record = records[free]
            taken[bucket] = 1
            ffi.fill(record, ffi.sizeof("sluice_record"))
            record.used, record.high, record.low = clock(), high, low
        end
        return free
    end

    local function sum_of_name(holder)
        local a, b, c, d, e, f, g, h = ngx.md5_bin(holder.name):byte(1, 8)
        holder.high = a * 0x1000000 + b * 0x10000 + c * 0x100 + d
        holder.low = e * 0x1000000 + f * 0x10000 + g * 0x100 + h
    end

    -- common is the record that the workers share of a holder, a table with a name, or nil where there is no place for it.
    function common(holder)
        local record = holder.record
        if record and record.high == holder.high and record.low == holder.low then
            return record
        elseif not memory then
            return nil
        end
        if not holder.high then
            sum_of_name(holder)
        end
        local place = exclusive(take_place, holder.high, holder.low)
        holder.record = place and records + place
        holder.columns = place and columns + place * count
        return holder.record
    end

    local function count_conns(record, column, n)
        column[own] = column[own] + n
        record.conns = record.conns + n
    end

    -- add_conns counts requests that this worker has given to a holder with a record.
    function add_conns(holder, n)
        exclusive(count_conns, holder.record, holder.columns, n)
    end

    local function clear_place(place)
        records[place].conns = records[place].conns - columns[place * count + own]
        columns[place * count + own] = 0
    end

    -- clear_column runs when a worker starts: it takes the place of one that was killed, whose requests have ended.
    function clear_column()
        own = ngx.worker.id()
        for bucket = 0, memory and BUCKETS - 1 or -1 do
            if taken[bucket] ~= 0 then
                for place = bucket * WAYS, bucket * WAYS + WAYS - 1 do
                    exclusive(clear_place, place)
                end
            end
        end
    end
end
