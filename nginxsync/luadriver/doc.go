// Package luadriver puts routes into a running Nginx that has the Lua module (Debian's
// libnginx-mod-http-lua, OpenResty).
//
// The routes live in a shared dictionary. Each worker keeps a table of the rows that it was asked
// for and looks with each request whether the dictionary has another generation, so that a push
// needs no reload and a request costs the same with any number of upstreams. Each worker writes
// down the generation that it answers with; a push counts as verified when all have the new one. A
// push wakes the workers, over UDP on 127.0.0.1, so that those without requests do so at once.
//
// The embedder's steps, in this order:
//
//   - give Snippets to transform.Transform, so that the configuration has the dictionary, the code
//     and the admin socket;
//   - put the admin socket into a directory that only the agent's user may enter: Nginx lets all
//     users open the socket itself;
//   - call RemoveStaleSockets before it starts Nginx: after a crash the old files are still there,
//     and Nginx does not bind over them;
//   - give a Driver from New to the agent.
//
// In the dictionary a row lists the instances of a cluster in a scope: on a VIP, or in the
// baseline. A push costs what it changes: its rows go into a second slot of their keys, beside
// those in force, and setting one number brings all of them into force; a row that went out of
// force is removed after that. A push that ends early, because its worker was killed, has changed
// nothing that counts, and the next push removes what it left. Workers read in a log of changed
// keys what to forget, and load a row when it is first asked for; one that is more than 64 pushes
// behind forgets all. A full push over other routes needs room for both; when there is none the old
// ones stay. A reload keeps the dictionary as long as its size is the same; a new start reads the
// state file, or the copy of before where the file is damaged. lua/store.lua lists the keys.
//
// Requests go to instances as Nginx's own modules choose: smooth weighted round robin, least_conn,
// hash with and without consistent, ip_hash, random, with max_fails, fail_timeout and max_conns of
// production's servers. Where production's upstream has a zone, the workers share what its modules
// share: requests in flight, failures and turns; else each counts on its own. A request that fails
// stays in the set of instances that it began with. Driver.InFlight counts the requests to an
// instance that is to end.
//
// Two things differ from Nginx. Where all instances of a cluster failed lately, one is asked all
// the same: Nginx answers 502 until fail_timeout has passed. Requests begin anywhere in the turns
// of a set, not with its first instance.
package luadriver
