package transform

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// Certificate is a certificate that the test Nginx reads under Rules.Certificates.
type Certificate struct {
	// File is the path of a PEM file with the private key and the certificate.
	File string `json:"file"`
	// Names are the DNS names that it is for, such as "bj.city.example" and "*.city.example",
	// sorted; none for a server block that has no name.
	Names []string `json:"names"`
}

// productionsKeys are the directives of ngx_http_ssl_module that read keys of production, or texts
// that belong to its certificates.
var productionsKeys = set("ssl_certificate", "ssl_certificate_key", "ssl_ech_file",
	"ssl_enc_certificate", "ssl_enc_certificate_key", "ssl_password_file",
	"ssl_session_ticket_key", "ssl_sign_certificate", "ssl_sign_certificate_key",
	"ssl_stapling_file")

// productionsKey removes a directive that reads production's keys, where the test Nginx has
// certificates of its own. It reports whether it did.
func (t *transform) productionsKey(n conf.Node) bool {
	if t.rules.Certificates == "" || !productionsKeys[n.Name()] || len(n.Parents) == 0 ||
		n.Parents[0].Name() != "http" {
		return false
	}
	t.edit.Remove(n.Directive)
	t.changed(n.Directive, "certificates", "%s is removed: the test Nginx has a certificate of "+
		"its own for each server block", n.Name())
	return true
}

// certificates gives each server on a socket with TLS a certificate of its own. Nginx takes every
// server of such a socket for one with TLS, whether its own listen says ssl or not.
func (t *transform) certificates(all *sockets) {
	if t.rules.Certificates == "" {
		return
	}
	secure := map[string]bool{}
	for _, l := range all.all {
		secure[l.listen.address] = secure[l.listen.address] || l.listen.quic() ||
			slices.Contains(l.listen.flags, "ssl") || switchedOn(l.server)
	}
	done := map[*conf.Directive]bool{}
	for _, l := range all.all {
		if !secure[l.listen.address] || done[l.server.Directive] {
			continue
		}
		done[l.server.Directive] = true
		c := t.rules.certificate(l.server)
		t.edit.Prepend(l.server.Directive, fmt.Sprintf("ssl_certificate %[1]s;\n"+
			"ssl_certificate_key %[1]s;", c.File))
		t.changed(l.server.Directive, "certificates", "has the certificate %s, for %s", c.File,
			listed(c.Names))
		t.add(c)
	}
}

func listed(names []string) string {
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, ", ")
}

// switchedOn reports whether the server says "ssl on", as trees for Nginx before 1.25.1 do.
func switchedOn(server conf.Node) bool {
	for n := range server.Children() {
		if n.Name() == "ssl" && n.Arg(0) == "on" {
			return true
		}
	}
	return false
}

func (t *transform) add(c Certificate) {
	if !slices.ContainsFunc(t.needed, func(have Certificate) bool { return have.File == c.File }) {
		t.needed = append(t.needed, c)
	}
}

// certificate is that of a server block. Blocks with the same names share one.
func (r Rules) certificate(server conf.Node) Certificate {
	c := Certificate{Names: []string{}}
	for _, name := range serverNames(server) {
		if strings.HasPrefix(name, "~") {
			name = wildcard(name)
		}
		if dnsName(strings.TrimPrefix(name, "*.")) {
			c.Names = append(c.Names, name)
		}
	}
	slices.Sort(c.Names)
	c.Names = slices.Compact(c.Names)
	first := "none"
	if len(c.Names) > 0 {
		first = strings.TrimPrefix(c.Names[len(c.Names)-1], "*.")
	}
	sum := sha256.Sum256([]byte(strings.Join(c.Names, " ")))
	c.File = path.Join(r.Certificates, first[:min(len(first), 100)]+"-"+
		hex.EncodeToString(sum[:4])+".pem")
	return c
}

// wildcard is the wildcard for the literal end of an expression, such as "*.city.example" for
// "~^(?<city>[a-z]+)\.city\.example$"; empty for one without such an end.
func wildcard(expression string) string {
	rest, ok := strings.CutSuffix(expression, "$")
	if !ok {
		return ""
	}
	at := len(rest) // where the literal labels begin
	for i := at - 1; i > 0; i-- {
		switch c := rest[i]; {
		case c == '.' && rest[i-1] == '\\':
			at, i = i-1, i-1
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
		default:
			i = 0
		}
	}
	labels := strings.ReplaceAll(rest[at:], `\`, "")
	if strings.Count(labels, ".") < 2 {
		return "" // not for a whole top-level domain
	}
	return "*" + labels
}

// dnsName reports whether a certificate can be for the name (RFC 5280, section 4.2.1.6, with the
// underscores that browsers accept).
func dnsName(name string) bool {
	if len(name) > 253 {
		return false
	}
	digits := true
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || label == "_" {
			return false
		}
		digits = strings.Trim(label, "0123456789") == "" // an address, by its last label
	}
	return !digits
}

// certificatesOf are the certificates that a transformed tree reads.
func (r Rules) certificatesOf(tree *conf.Tree) []Certificate {
	var t transform
	for server := range tree.Find("http", "server") {
		for n := range server.Children() {
			if n.Name() == "ssl_certificate" && r.Certificates != "" &&
				path.Dir(n.Arg(0)) == path.Clean(r.Certificates) {
				t.add(r.certificate(server))
			}
		}
	}
	return t.needed
}
