package promote

import (
	"fmt"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Digest names the content of an image: "sha256:" and 64 lower-case hexadecimal digits. Only
// digests move through the pipeline; tags and versions are names for people.
type Digest string

// None stands for "nothing is deployed" where a caller states the digest that it expects to be
// current. It is not the digest of anything.
const None Digest = "none"

// Any stands for "whatever is current" where a caller states the digest that it expects. A request
// that comes late then replaces something newer.
const Any Digest = "any"

// ParseDigest returns s as a Digest, or an error that wraps ErrInvalid.
func ParseDigest(s string) (Digest, error) {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("digest %s: want sha256: and 64 lower-case hexadecimal digits: %w",
			names.Quote(s), ErrInvalid)
	}
	return Digest(s), nil
}

// String returns the digest as it is written.
func (d Digest) String() string { return string(d) }

// Short returns enough of the digest for a person to recognize it: the algorithm and 12
// digits. It returns "none" for None and for the zero Digest.
func (d Digest) Short() string {
	if d == "" {
		return string(None)
	}
	return clip(string(d), len("sha256:")+12)
}

// clip is s cut to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
