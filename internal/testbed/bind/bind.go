//go:build linux

// Package bind runs BIND for tests.
package bind

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// The key that may update and transfer the zones, with HMAC-SHA256.
const (
	KeyName   = "sluice-key"
	KeySecret = "c2x1aWNlIHRlc3RiZWQga2V5IG9mIDMyIGJ5dGVzLg=="
)

// Server is a primary name server.
type Server struct {
	Addr    string // host:port, UDP and TCP
	Process *testbed.Process
}

// Zone is a zone of a Server.
type Zone struct {
	Name    string // without a dot at the end
	Records string // lines of a zone file, besides the SOA and NS records; may be empty
	Options string // statements of the zone; the default lets the key update and transfer it
}

// Start runs named with these zones on a free port of 127.0.0.1.
func Start(t testing.TB, zones ...Zone) *Server {
	t.Helper()
	dir, addr := testbed.Endpoint(t, "named", nil)
	path := testbed.NeedProgram(t, "named", "bind9")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`options {
	directory %[1]q; pid-file none; session-keyfile %[2]q; managed-keys-directory %[1]q;
	listen-on port %[4]s { %[3]s; }; listen-on-v6 { none; }; recursion no; dnssec-validation no;
	notify no; allow-transfer { none; };
};
controls { };
key %[5]q { algorithm hmac-sha256; secret %[6]q; };
`, dir, filepath.Join(dir, "session.key"), host, port, KeyName, KeySecret)
	for i, z := range zones {
		file := filepath.Join(dir, fmt.Sprintf("zone-%d", i))
		if z.Options == "" {
			z.Options = fmt.Sprintf("allow-update { key %[1]q; }; allow-transfer { key %[1]q; };",
				KeyName)
		}
		config += fmt.Sprintf("zone %q { type primary; file %q; %s };\n", z.Name, file, z.Options)
		records := "$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n" +
			z.Records + "\n"
		write(t, file, records)
	}
	file := filepath.Join(dir, "named.conf")
	write(t, file, config)
	return &Server{Addr: addr, Process: testbed.Start(t, dir, testbed.Command{
		Name: "named", Path: path, Args: []string{"-g", "-c", file, "-n", "1"},
		Ready: func(ctx context.Context) error { // it listens before it has loaded its zones
			for _, z := range zones {
				if err := serves(ctx, addr, z.Name); err != nil {
					return err
				}
			}
			return nil
		},
	})}
}

// serves is nil once the server has loaded a zone.
func serves(ctx context.Context, addr, zone string) error {
	question := new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA)
	answer, _, err := (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, question, addr)
	if err != nil {
		return err
	}
	if answer.Rcode != dns.RcodeSuccess || !answer.Authoritative {
		return fmt.Errorf("zone %s: %s", zone, dns.RcodeToString[answer.Rcode])
	}
	return nil
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
