//go:build linux

package transform_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/testca"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// The certificates of production are not on this machine. Nginx answers each host with one that a
// client takes which trusts the test environment's authority, and with that of the right block.
func TestCertificatesStandForProductions(t *testing.T) {
	t.Parallel()
	dir := nginxtest.Dir(t)
	port := nginxtest.Port(t)
	text := `worker_processes 1;
events {}
http {
access_log off;
ssl_certificate /etc/ssl/none.pem; ssl_certificate_key /etc/ssl/none.key;
ssl_session_ticket_key /etc/ssl/ticket.key;
server { listen 443 ssl default_server; server_name _; return 200 none; }
server { listen 443 ssl; server_name www.city.example city.example; return 200 www;
	ssl_certificate /etc/ssl/www.pem; ssl_certificate_key "engine:x:y"; ssl_password_file /etc/p; }
server { listen 443; server_name .wild.example; return 200 wild; }
server { listen 443 ssl; server_name ~^(?<city>[a-z]+)\.city\.example$; return 200 $city;
	include ssl.conf; }
}
`
	rules := transform.Rules{Listen: map[int]int{443: port}, TempDir: filepath.Join(dir, "temp"),
		Certificates: filepath.Join(dir, "certificates"),
		Main:         map[string]string{"user": "", "pid": filepath.Join(dir, "pid"), "daemon": "off"}}
	fsys := fstest.MapFS{"nginx.conf": {Data: []byte(text)}, "ssl.conf": {Data: []byte(
		"ssl_certificate $ssl_server_name.pem;\nssl_certificate_key $ssl_server_name.key;\n")}}
	result, err := transform.Transform(parse(t, fsys), rules)
	require.NoError(t, err)
	var names []string
	for _, c := range result.Certificates {
		names = append(names, strings.Join(c.Names, " "))
	}
	require.Equal(t, []string{"", "city.example www.city.example", "*.wild.example wild.example",
		"*.city.example"}, names)
	require.NotContains(t, result.Files["nginx.conf"]+result.Files["ssl.conf"], "/etc/")
	again, err := transform.Transform(parse(t, result.FS()), rules)
	require.NoError(t, err)
	require.ElementsMatch(t, result.Certificates, again.Certificates)

	ca, err := testca.Open(testca.Config{File: filepath.Join(dir, "ca.pem"),
		Names: []string{"city.example", "wild.example"}})
	require.NoError(t, err)
	for _, c := range result.Certificates {
		_, err := ca.Ensure(c.File, c.Names)
		require.NoError(t, err)
	}
	require.NoError(t, os.Mkdir(rules.TempDir, 0o755))
	conf := filepath.Join(dir, "conf")
	require.NoError(t, result.WriteTo(conf))
	nginxtest.Start(t, dir, filepath.Join(conf, "nginx.conf"))
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca.PEM()))
	for host, want := range map[string]string{
		"city.example": "city.example www.city.example", "www.city.example": "city.example " +
			"www.city.example", "bj.city.example": "*.city.example",
		"a.wild.example": "*.wild.example wild.example", "elsewhere.example": "", "10.1.1.1": "",
	} {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{
			ServerName: host, RootCAs: roots})
		if want == "" {
			var wrong x509.HostnameError
			require.ErrorAs(t, err, &wrong, host)
			continue
		}
		require.NoError(t, err, host)
		leaf := conn.ConnectionState().PeerCertificates[0]
		require.NoError(t, conn.Close())
		require.Equal(t, want, strings.Join(leaf.DNSNames, " "))
	}
}

// A server block's certificate is for its names that a certificate can be for.
func TestNamesOfCertificates(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"A.city.example":                     "a.city.example",
		".city.example":                      "*.city.example city.example",
		"*.city.example":                     "*.city.example",
		"city.*":                             "",
		"_":                                  "",
		`""`:                                 "",
		"10.1.1.1":                           "",
		"a_b.city.example":                   "a_b.city.example",
		"-a.city.example":                    "",
		`~^\w+\.city\.example$`:              "*.city.example",
		`~^(www|m)\.(city|town)\.example$`:   "",
		`~\.a\.city\.example$`:               "*.a.city.example",
		`~^.*\.example$`:                     "",
		`~city\.example`:                     "",
		`"~^\d{2}\.city\.example$"`:          "*.city.example",
		`~^xcity.example$`:                   "",
		"$hostname":                          "",
		strings.Repeat("a", 64) + ".example": "",
	} {
		result, err := transform.Transform(parse(t, oneFile("events {}\nhttp { server { listen 443 "+
			"ssl; server_name "+name+"; ssl_certificate /a; ssl_certificate_key /b; } }")),
			transform.Rules{Listen: map[int]int{443: 8443}, Certificates: "/srv/certs"})
		require.NoError(t, err, name)
		require.Len(t, result.Certificates, 1, name)
		require.Equal(t, want, strings.Join(result.Certificates[0].Names, " "), name)
		require.Equal(t, "/srv/certs", filepath.Dir(result.Certificates[0].File))
	}
}

func TestBadCertificatesDirectory(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"certs", "/a b", "/a;b", "/$x", `/a"b`, "/a\nb"} {
		err := transform.Rules{Certificates: dir}.Validate()
		require.ErrorIs(t, err, transform.ErrInvalid, dir)
		require.ErrorContains(t, err, "certificates")
	}
}
