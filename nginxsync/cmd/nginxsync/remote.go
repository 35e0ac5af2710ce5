package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// entrance checks the section remote, and returns the token of its file.
func (a *assembly) entrance(bad func(string, error)) (token string) {
	r := a.file.Remote
	if r == nil {
		return ""
	}
	if _, err := netip.ParseAddrPort(r.Listen); err != nil {
		bad("remote.listen", fmt.Errorf("%.128q: want an address with a port, such as "+
			"10.0.1.1:9182", r.Listen))
	}
	text, err := os.ReadFile(r.TokenFile)
	if err != nil {
		bad("remote.tokenFile", err)
	}
	if (r.Cert == "") != (r.Key == "") {
		bad("remote", errors.New("want cert and key, or none of them"))
	} else if r.Cert != "" {
		pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
		if err != nil {
			bad("remote", fmt.Errorf("cert, key: %w", err))
		}
		a.tls = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	return strings.TrimSpace(string(text))
}
