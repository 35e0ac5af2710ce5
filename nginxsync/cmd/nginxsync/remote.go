package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// entrance is a section that lets other machines in.
type entrance struct {
	token string
	tls   *tls.Config // nil for plain HTTP
}

// entrance checks a section that lets other machines in; nil is none.
func (r *remoteEntry) entrance(at string, bad func(string, error)) (e entrance) {
	if r == nil {
		return e
	}
	if _, err := netip.ParseAddrPort(r.Listen); err != nil {
		bad(at+".listen", fmt.Errorf("%.128q: want an address with a port, such as "+
			"10.0.1.1:9182", r.Listen))
	}
	text, err := os.ReadFile(r.TokenFile)
	if err != nil {
		bad(at+".tokenFile", err)
	}
	if (r.Cert == "") != (r.Key == "") {
		bad(at, errors.New("want cert and key, or none of them"))
	} else if r.Cert != "" {
		pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
		if err != nil {
			bad(at, fmt.Errorf("cert, key: %w", err))
		}
		e.tls = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	e.token = strings.TrimSpace(string(text))
	return e
}
