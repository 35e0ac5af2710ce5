// Package probe asks whether an address is in use before vip hands it out: by a TCP connection, or
// by ARP or neighbor discovery on a network link. InUse of either is a vip.Config.Probe:
//
//	vip.Config{Probe: probe.ARP{Interface: "eth0"}.InUse}
//
// An address that the machine itself has, as each of 127.0.0.0/8, is always in use.
package probe
