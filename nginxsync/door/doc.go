// Package door is a forward proxy for each test task: a browser, a phone or a tool that uses it
// sees production's host names answered by the version under test, with no hosts file and no
// change to the URL.
//
// A task has a port of its own, or is named as the proxy user on a port that all tasks share. The
// door dials the VIP of the task's lease and nothing else, for hosts and ports that the mirrored
// tree serves and no others: it cannot be used to reach anything besides. It forwards HTTP in
// absolute form, tunnels CONNECT without opening TLS, and passes WebSocket and HTTP/2 inside a
// tunnel. A host that the tree does not name is answered with 403 before anything is dialled; a
// task that has ended with 410, also over CONNECT, and its open tunnels are closed before its VIP
// has another task.
//
// The caller's steps:
//
//   - say which task has which lease (Config.Task) and which hosts the tree serves
//     (Config.Serves; route.Router.Serves does);
//   - Open the door, let Run work, and ask Port for the port of a task;
//   - call Check after a lease has ended, so that tunnels close at once and not with the next look.
//
// For example:
//
//	d, err := door.Open(ctx, door.Config{Task: tasks, Serves: router.Serves,
//		Targets: map[int]int{80: 8880, 443: 8843}, First: 21000, Last: 21999,
//		State: "ports.json"})
//	go d.Run(ctx)
//	port, err := d.Port(ctx, "login-fix")
//
// A port of the door leads to the version under test without a password, as its VIP does. To Nginx
// the client is the door: limits by $remote_addr count all testers as one, unless Config.Client
// passes the address on.
package door
