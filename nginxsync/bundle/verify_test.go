package bundle_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
)

func bundleOf(t *testing.T, files map[string]string) *bundle.Bundle {
	t.Helper()
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	b, err := bundle.Read(m, bundle.Limits{})
	require.NoError(t, err)
	return b
}

func fetchVerified(t *testing.T, files map[string]string, s bundle.VerifiedSource) error {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	s.Source = &bundle.DirSource{FS: m, Settle: 1}
	_, err := s.Fetch(t.Context(), "")
	return err
}

func TestSignature(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	other, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	files := map[string]string{"nginx.conf": "events {}", "conf.d/a.conf": "x"}
	signature, err := bundle.Sign(bundleOf(t, files), private)
	require.NoError(t, err)
	files[bundle.SignatureFile] = signature
	again, err := bundle.Sign(bundleOf(t, files), private)
	require.NoError(t, err)
	require.Equal(t, signature, again, "the signature is over the other files")
	keys := []ed25519.PublicKey{other, public}
	require.NoError(t, fetchVerified(t, files, bundle.VerifiedSource{Keys: keys}))
	for name, c := range map[string]struct {
		change func(map[string]string)
		keys   []ed25519.PublicKey
		want   string
	}{
		"another key": {func(map[string]string) {}, []ed25519.PublicKey{other},
			"by none of the 1 keys"},
		"no good key": {func(map[string]string) {}, []ed25519.PublicKey{nil},
			"by none of the 1 keys"},
		"text": {func(f map[string]string) {
			f["nginx.conf"] += " "
		}, keys, "a file was changed after it"},
		"one more file": {func(f map[string]string) {
			f["b"] = ""
		}, keys, "a file was changed after it"},
		"one file less": {func(f map[string]string) {
			delete(f, "conf.d/a.conf")
		}, keys, "a file was changed after it"},
		"no signature": {func(f map[string]string) {
			delete(f, bundle.SignatureFile)
		}, keys, "has no sluice.sig"},
		"not one": {func(f map[string]string) {
			f[bundle.SignatureFile] = "x"
		}, keys, "sluice.sig is no signature"},
		"only signature": {func(f map[string]string) {
			delete(f, "nginx.conf")
			delete(f, "conf.d/a.conf")
		}, keys, "no files"},
	} {
		changed := maps.Clone(files)
		c.change(changed)
		err := fetchVerified(t, changed, bundle.VerifiedSource{Keys: c.keys})
		require.ErrorIs(t, err, bundle.ErrInvalid, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestChecksums(t *testing.T) {
	t.Parallel()
	sum := func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
	whole := sum("1") + "  nginx.conf\n" + strings.ToUpper(sum("2")) + " *./conf.d/a b.conf\n"
	for _, c := range []struct{ sums, want string }{
		{whole, ""},
		{sum("1") + "  nginx.conf\n", `file "conf.d/a b.conf" is not in SHA256SUMS`},
		{whole + sum("3") + "  c\n", `SHA256SUMS:3: file "c" is missing`},
		{strings.Replace(whole, sum("1"), sum("9"), 1),
			`SHA256SUMS:1: file "nginx.conf" has another checksum`},
		{"x\n", "SHA256SUMS:1: want a SHA-256"},
	} {
		files := map[string]string{"nginx.conf": "1", "conf.d/a b.conf": "2",
			bundle.ChecksumFile: c.sums}
		err := fetchVerified(t, files, bundle.VerifiedSource{Checksums: true})
		if c.want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, bundle.ErrInvalid)
		require.ErrorContains(t, err, c.want)
	}
	require.ErrorContains(t, fetchVerified(t, map[string]string{"a": ""},
		bundle.VerifiedSource{Checksums: true}), "has no SHA256SUMS")
}
