// Package cutoff ends the connections that an Nginx keeps to instances that are gone. It is a
// Driver around another one, so that it sees each change of the routes:
//
//   - An address that changes hands in a push, from one instance or version to another, has its
//     connections of before destroyed as soon as the push is accepted: a connection that Nginx
//     keeps open would lead to the instance of before, or nowhere.
//   - An address that no route names any more has its connections destroyed after Config.After: a
//     websocket or a stream would stay on its version until one of its ends closes it.
//
// The kernel ends them (sock_diag(7), SOCK_DESTROY) as if the other side had reset the connection.
// Only connections of the workers of this Nginx are ended, also of workers that a reload has
// retired; other programs of the host keep theirs.
//
// Steps for the embedder:
//
//   - make a Driver around the one of luadriver, and give it to the Agent;
//   - run Driver.Run beside Agent.Run;
//   - run as root, or with CAP_NET_ADMIN and CAP_SYS_PTRACE, in the network and PID namespace of
//     Nginx. Without the right nothing is ended, and Driver.Status and the log say so.
//
// With Config.File a process that starts again ends the connections to addresses that left the
// routes before.
package cutoff
