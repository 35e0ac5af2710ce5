// Package localaddr makes addresses answer on this machine by local routes on the loopback
// ("AnyIP"), by netlink, as if by
//
//	ip route add local 10.58.0.7/32 dev lo proto 158
//
// Ten thousand routes cost the kernel less than ten thousand addresses of an interface, and a route
// leaves the interfaces as they are. The driver knows its own routes by their protocol number, so
// it takes over the routes of a former process, removes those without a lease, and touches no other
// route.
//
// It needs CAP_NET_ADMIN, and Linux. It answers no ARP: the addresses must be routed to this
// machine, or be announced by a system before it, such as LVS in direct routing. A server reaches
// them by listening on any address; Linux lets a socket be bound to one of them in IPv4, in IPv6
// only with net.ipv6.ip_nonlocal_bind=1.
package localaddr
