package bundle

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// SignatureFile is the name, in the bundle, of the signature over all of its other files.
const SignatureFile = "sluice.sig"

// ChecksumFile is the name, in the bundle, of the list that sha256sum(1) writes.
const ChecksumFile = "SHA256SUMS"

// VerifiedSource passes the bundles of another source on when they prove whole and genuine, and
// refuses the others with ErrInvalid. It is safe for concurrent use.
type VerifiedSource struct {
	Source Source
	// Keys are the keys of the people that may change the production tree. A bundle must have a
	// SignatureFile by one of them, made by Sign. Without a key signatures are not checked.
	Keys []ed25519.PublicKey
	// Checksums asks for a ChecksumFile that lists each other file, the SignatureFile aside, with
	// its SHA-256, and no more: a proof that a bundle is whole.
	Checksums bool
}

var _ Source = (*VerifiedSource)(nil)

// Fetch implements Source.
func (s *VerifiedSource) Fetch(ctx context.Context, after string) (*Bundle, error) {
	b, err := s.Source.Fetch(ctx, after)
	if err != nil {
		return nil, err
	}
	if s.Checksums {
		if err := b.checkSums(); err != nil {
			return nil, err
		}
	}
	if len(s.Keys) > 0 {
		if err := b.checkSignature(s.Keys); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// signed returns the text that a signature signs, made of names, modes and contents of all files
// but the signature's own.
func (b *Bundle) signed() ([]byte, error) {
	files := maps.Clone(b.Files)
	delete(files, SignatureFile)
	bare, err := New(files, Limits{Files: len(files), Bytes: 1 << 62})
	if err != nil {
		return nil, err
	}
	return []byte("sluice bundle 1 " + bare.Digest + "\n"), nil
}

// Sign is the content of the SignatureFile for the bundle. The signature covers modes: where the
// source does not carry them (git knows 0644 and 0755 only), the bundle that is signed must have
// the modes of the fetched bundle.
func Sign(b *Bundle, key ed25519.PrivateKey) (string, error) {
	text, err := b.signed()
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return base64.StdEncoding.EncodeToString(ed25519.Sign(key, text)) + "\n", nil
}

func (b *Bundle) checkSignature(keys []ed25519.PublicKey) error {
	f, ok := b.Files[SignatureFile]
	if !ok {
		return fmt.Errorf("bundle %s has no %s, and a signature is asked for: %w", b.Digest,
			SignatureFile, ErrInvalid)
	}
	signature, err := base64.StdEncoding.DecodeString(strings.TrimSpace(f.Text))
	if err != nil || len(signature) != ed25519.SignatureSize {
		return fmt.Errorf("bundle %s: %s is no signature, want %d bytes in base64: %w", b.Digest,
			SignatureFile, ed25519.SignatureSize, ErrInvalid)
	}
	text, err := b.signed()
	if err != nil {
		return err
	}
	for _, key := range keys {
		if len(key) == ed25519.PublicKeySize && ed25519.Verify(key, text, signature) {
			return nil
		}
	}
	return fmt.Errorf("bundle %s: its signature is by none of the %d keys, or a file was changed "+
		"after it: %w", b.Digest, len(keys), ErrInvalid)
}

func (b *Bundle) checkSums() error {
	list, ok := b.Files[ChecksumFile]
	if !ok {
		return fmt.Errorf("bundle %s has no %s, and checksums are asked for: %w", b.Digest,
			ChecksumFile, ErrInvalid)
	}
	listed := map[string]bool{ChecksumFile: true, SignatureFile: true}
	lines := bufio.NewScanner(strings.NewReader(list.Text))
	for line := 1; lines.Scan(); line++ {
		sum, name, ok := strings.Cut(lines.Text(), " ")
		if !ok || len(name) < 2 {
			return fmt.Errorf("bundle %s: %s:%d: want a SHA-256, two spaces and a name: %w",
				b.Digest, ChecksumFile, line, ErrInvalid)
		}
		name = path.Clean(name[1:])
		f, ok := b.Files[name]
		if !ok && skipped(name) {
			continue
		} else if !ok {
			return fmt.Errorf("bundle %s: %s:%d: file %q is missing: %w", b.Digest, ChecksumFile,
				line, name, ErrInvalid)
		}
		if got := sha256.Sum256([]byte(f.Text)); !strings.EqualFold(sum,
			hex.EncodeToString(got[:])) {
			return fmt.Errorf("bundle %s: %s:%d: file %q has another checksum: %w", b.Digest,
				ChecksumFile, line, name, ErrInvalid)
		}
		listed[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(b.Files)) {
		if !listed[name] {
			return fmt.Errorf("bundle %s: file %q is not in %s: %w", b.Digest, name, ChecksumFile,
				ErrInvalid)
		}
	}
	return lines.Err()
}
