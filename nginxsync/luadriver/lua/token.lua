
-- What Nginx keeps over time (cached pages, counts of limits) is kept under a token of who serves: the VIP, and a digest of
-- what the routes say about it. Whatever changes the answer changes the token, and the same routes give the same token again.
local tokens, tokens_of = {}, nil -- by VIP, of the push

local function make_token(vip)
    local base, own = view_of("-") or "none", view_of(vip)
    local note = own and note_of(vip)
    if note and note.branches then
        for _, branch in ipairs(note.branches) do
            own = own .. (view_of(branch) or "none")
        end
    end
    return vip .. "-" .. (own and ngx.md5(base .. own):sub(1, 16) or base)
end

local function token_of(vip)
    if tokens_of ~= at then
        tokens, tokens_of = {}, at
    end
    local token = tokens[vip]
    if not token then
        token = consistent(make_token, vip)
        if tokens_of == at then
            tokens[vip] = token
        end
    end
    return token
end

-- held_token is the token of the first subrequest with variables of its own, for all of the request: what srcache fetches and what
-- it stores belong under one token.
local function held_token(vip)
    local main = main_of()
    if not held[main] then
        refresh()
        held[main], holding = token_of(vip), holding + 1
    end
    return held[main]
end

-- token sets $sluice_token, before any other directive sets a variable. A subrequest shares the variables of its request, and so the
-- token; the subrequests of srcache, echo and ngx.location.capture have variables of their own, where it has its first value, the VIP.
function routes.token()
    tokens_used = true
    local var = ngx.var
    if not ngx.is_subrequest then
        refresh()
        choose(var)
        var.sluice_token = token_of(vip_of(var))
        return
    end
    choose(var)
    local vip = vip_of(var)
    if var.sluice_token == vip then
        var.sluice_token = held_token(vip)
    end
end

-- keep has an answer not kept that does not belong under its token: the routes have changed since, instances of several versions
-- serve the cluster, or none does. $sluice_fleeting stays set for the rest of the request.
function routes.keep(var, vip, set)
    if tokens_used and (not set or set.n == 0 or set.mixed or var.sluice_token ~= token_of(vip)) then
        var.sluice_fleeting = "1"
    end
end

-- version is that of the pages which the cache has under the token of the request.
function routes.version(cluster)
    local var = ngx.var
    if ngx.is_subrequest then
        return var.sluice_version
    end
    local vip = vip_of(var)
    local set = set_of(vip, cluster:lower())
    if var.sluice_token ~= token_of(vip) then
        return "" -- the routes have changed since
    end
    if not set or set.n == 0 then
        ngx.ctx.sluice_cluster = cluster -- see unavailable_header
    end
    return not set and "none" or set.mixed and "" or set.version
end

-- excepted is version for a method that limit_except excludes: Nginx has run none of the location's rewrites.
function routes.excepted(cluster)
    local var = ngx.var
    if var.sluice_version == "" and not ngx.is_subrequest then
        var.sluice_version = routes.version(cluster)
    end
end

-- escaped are the bytes that Nginx escapes in a path (ngx_escape_uri, NGX_ESCAPE_URI).
local function escaped(path)
    return (path:gsub('[%z\1-\32#%%?\127-\255]', function(c) return string.format("%%%02X", c:byte()) end))
end

-- uri sets the variable of a location with the URI that its upstream will be asked for, at the end of the rewrite phase. $sluice_at
-- has the variable's name, how much of the path proxy_pass replaces ("@" in a named location), and by what.
function routes.uri()
    local var = ngx.var
    local name, cut, to = var.sluice_at:match("^(%S+) (%S+) (.*)$")
    if not name then
        return
    end
    local internal = ngx.req.is_internal() -- also after a rewrite
    local asked
    if to == "" and not internal then
        asked = var.request_uri
    else
        local path, args = var.uri, var.args
        if cut ~= "@" and path == var.sluice_before then
            path = path:sub(tonumber(cut) + 1)
        else
            to = "" -- rewritten in the location: proxy_pass's own URI is left out
        end
        if internal or var.request_uri:match("^[^?]*"):find("%", 1, true) then
            path = escaped(path)
        end
        asked = to .. path .. (args and args ~= "" and "?" .. args or "")
        if cut == "@" and var.uri == var.sluice_before and asked ~= var.request_uri then
            asked = asked .. " " .. var.request_uri -- Nginx takes this one if nothing rewrote the request before
        end
    end
    var[name] = asked
end

-- Where an upstream is asked in another protocol than plain HTTP, the 503 socket cannot answer: Nginx says 502, no live upstream,
-- and these make it the same answer.
function routes.unavailable_header()
    if ngx.status ~= 502 or ngx.is_subrequest or ngx.var.sluice_version ~= "none" then
        return
    end
    local cluster = ngx.ctx.sluice_cluster
    if ngx.var.sluice_reason == "" and cluster then -- the 502 is one that a cache kept, and nothing chose an instance
        ngx.var.sluice_reason = "no-instance; cluster=" .. cluster
    end
    ngx.status = 503
    ngx.header.content_type = "text/plain"
    ngx.header.content_length = nil
    ngx.ctx.sluice_unavailable = true
end

function routes.unavailable_body()
    if ngx.ctx.sluice_unavailable then
        ngx.ctx.sluice_unavailable = nil
        ngx.arg[1] = "no instance serves this cluster on VIP " .. ngx.var.sluice_vip .. "\n"
        ngx.arg[2] = true
    end
end

-- file is the program in a file of the tree, for a block that takes the place of a *_by_lua_file.
function routes.file(path)
    if path:sub(1, 1) ~= "/" then
        path = ngx.config.prefix() .. path
    end
    local program, err = loadfile(path)
    if not program then
        error(err, 0)
    end
    return program
end

package.loaded["sluice.routes"] = routes
routes.init()
