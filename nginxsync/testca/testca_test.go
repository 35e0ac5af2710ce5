package testca_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/testca"
)

func Example() {
	dir, err := os.MkdirTemp("", "testca")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ca, err := testca.Open(testca.Config{File: filepath.Join(dir, "ca.pem"),
		Names: []string{"bj.city.example", "www.city.example"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("for the domains", ca.Domains())
	written, err := ca.Ensure(filepath.Join(dir, "bj.pem"), []string{"bj.city.example"})
	fmt.Println(written, err)
	_, err = ca.Ensure(filepath.Join(dir, "bank.pem"), []string{"bank.example"})
	fmt.Println(strings.TrimPrefix(err.Error(), "testca: "+dir))
	// Output:
	// for the domains [city.example]
	// true <nil>
	// /bank.pem: bank.example is in none of [city.example]: outside the domains
}

// clock is a time that a test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func open(t *testing.T, cfg testca.Config) *testca.CA {
	t.Helper()
	ca, err := testca.Open(cfg)
	require.NoError(t, err)
	return ca
}

// certificate reads the certificate of a PEM file, which only its owner may read.
func certificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for {
		block, rest := pem.Decode(text)
		require.NotNil(t, block, file)
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			require.NoError(t, err)
			return cert
		}
		text = rest
	}
}

// trusts returns why a client that trusts the authority alone does not take the certificate for the
// host, or nil.
func trusts(t *testing.T, ca *testca.CA, cert *x509.Certificate, host string, at time.Time) error {
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca.PEM()))
	_, err := cert.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: at})
	return err
}

func TestCertificatesAreTrustedForTheirNamesAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := &clock{time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	ca := open(t, testca.Config{File: filepath.Join(dir, "ca.pem"), Now: now.now,
		Names: []string{"*.city.example", "a.shop.co.uk", "intranet"}})
	require.Equal(t, []string{"city.example", "intranet", "shop.co.uk"}, ca.Domains())
	file := filepath.Join(dir, "leaves", "one.pem")
	written, err := ca.Ensure(file, []string{"*.city.example", "city.example"})
	require.NoError(t, err)
	require.True(t, written)
	cert := certificate(t, file)
	for _, host := range []string{"bj.city.example", "city.example"} {
		require.NoError(t, trusts(t, ca, cert, host, now.Time))
	}
	for _, host := range []string{"a.b.city.example", "a.shop.co.uk", "example", "127.0.0.1"} {
		require.Error(t, trusts(t, ca, cert, host, now.Time), host)
	}
	require.Error(t, trusts(t, ca, cert, "city.example", now.Add(91*24*time.Hour)))
	require.LessOrEqual(t, cert.NotAfter.Sub(now.Time), 90*24*time.Hour)
	require.False(t, cert.IsCA)

	written, err = ca.Ensure(filepath.Join(dir, "none.pem"), nil)
	require.NoError(t, err)
	require.True(t, written)
	require.Error(t, trusts(t, ca, certificate(t, filepath.Join(dir, "none.pem")), "city.example",
		now.Time))

	root := pemOf(t, ca)
	require.True(t, root.PermittedDNSDomainsCritical)
	require.NotEmpty(t, root.ExcludedIPRanges)
}

func pemOf(t *testing.T, ca *testca.CA) *x509.Certificate {
	block, rest := pem.Decode(ca.PEM())
	require.Empty(t, rest)
	require.Equal(t, "CERTIFICATE", block.Type)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

func TestCertificatesAreRenewedInTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := &clock{time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	cfg := testca.Config{File: filepath.Join(dir, "ca.pem"), Names: []string{"a.city.example"},
		Now: now.now}
	file, names := filepath.Join(dir, "a.pem"), cfg.Names
	for _, step := range []struct {
		name    string
		before  func()
		written bool
	}{
		{"first", func() {}, true},
		{"again", func() {}, false},
		{"after 59 days", func() { now.Time = now.Add(59 * 24 * time.Hour) }, false},
		{"after 61 days", func() { now.Time = now.Add(2 * 24 * time.Hour) }, true},
		{"other names", func() { names = []string{"b.city.example"} }, true},
		{"clock set back", func() { now.Time = now.Add(-2 * time.Hour) }, true},
		{"cut in half", func() {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, text[:len(text)/2], 0o600))
		}, true},
		{"deleted", func() { require.NoError(t, os.Remove(file)) }, true},
		{"another authority", func() { require.NoError(t, os.Remove(cfg.File)) }, true},
	} {
		step.before()
		ca := open(t, cfg) // as after a restart
		written, err := ca.Ensure(file, names)
		require.NoError(t, err)
		require.Equal(t, step.written, written, step.name)
		require.NoError(t, trusts(t, ca, certificate(t, file), names[0], now.Time), step.name)
	}
}

func TestAuthorityIsMadeAnewForANewDomain(t *testing.T) {
	t.Parallel()
	cfg := testca.Config{File: filepath.Join(t.TempDir(), "ca.pem"),
		Names: []string{"a.city.example"}}
	first := open(t, cfg).Pin()
	cfg.Names = []string{"a.city.example", "new.city.example"}
	require.Equal(t, first, open(t, cfg).Pin(), "a host of a known domain")
	cfg.Names = []string{"a.city.example", "a.town.example"}
	second := open(t, cfg)
	require.NotEqual(t, first, second.Pin())
	require.Equal(t, []string{"city.example", "town.example"}, second.Domains())
	cfg.Names = []string{"a.town.example"}
	require.Equal(t, second.Pin(), open(t, cfg).Pin(), "a domain less")
	later := time.Now().Add(5*365*24*time.Hour - 89*24*time.Hour)
	cfg.Now = func() time.Time { return later }
	require.NotEqual(t, second.Pin(), open(t, cfg).Pin(), "near its end")
}

func TestAuthorityWithoutNamesIsForNoHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := open(t, testca.Config{File: filepath.Join(dir, "ca.pem")})
	require.Equal(t, []string{"invalid"}, ca.Domains())
	_, err := ca.Ensure(filepath.Join(dir, "a.pem"), []string{"a.example"})
	require.ErrorIs(t, err, testca.ErrOutside)
	require.NoFileExists(t, filepath.Join(dir, "a.pem"))
}

func TestDamagedAuthorityStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good.pem")
	open(t, testca.Config{File: good})
	text, err := os.ReadFile(good)
	require.NoError(t, err)
	other := filepath.Join(dir, "other.pem")
	open(t, testca.Config{File: other})
	strange, err := os.ReadFile(other)
	require.NoError(t, err)
	at := strings.Index(string(text), "-----BEGIN CERTIFICATE")
	strangeAt := strings.Index(string(strange), "-----BEGIN CERTIFICATE")
	for name, damaged := range map[string]string{
		"empty": "", "half": string(text[:len(text)/2]), "key alone": string(text[:at]),
		"twice":              string(text) + string(text),
		"key of another one": string(strange[:strangeAt]) + string(text[at:]),
	} {
		file := filepath.Join(dir, "damaged.pem")
		require.NoError(t, os.WriteFile(file, []byte(damaged), 0o600))
		_, err := testca.Open(testca.Config{File: file})
		require.ErrorIs(t, err, testca.ErrDamaged, name)
		require.ErrorContains(t, err, file)
		require.NotContains(t, err.Error(), "BEGIN", name)
		left, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, damaged, string(left), name)
	}
	leaf := filepath.Join(dir, "leaf.pem")
	ca := open(t, testca.Config{File: good})
	_, err = ca.Ensure(leaf, nil)
	require.NoError(t, err)
	_, err = testca.Open(testca.Config{File: leaf})
	require.ErrorIs(t, err, testca.ErrDamaged, "a certificate that is no authority's")
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	_, err := testca.Open(testca.Config{Lifetime: 91 * 24 * time.Hour})
	require.ErrorIs(t, err, testca.ErrInvalid)
	require.ErrorContains(t, err, "Config.File: is required")
	require.ErrorContains(t, err, "Config.Lifetime: 2184h0m0s: want 2160h0m0s at most")
}
