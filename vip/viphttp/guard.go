package viphttp

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/sluice-deploy/sluice/vip"
)

// Why a request was not looked at.
var (
	errCrossSite = errors.New("forbidden")
	errToken     = errors.New("unauthenticated")
	errMedia     = errors.New("unsupported media type")
)

// guard refuses requests that change something and are not from where they should be.
type guard struct {
	site  *http.CrossOriginProtection
	token [sha256.Size]byte // of "Bearer TOKEN"
	open  bool              // no token is asked for
}

func newGuard(token string, origins []string) (*guard, error) {
	g := &guard{http.NewCrossOriginProtection(), sha256.Sum256([]byte("Bearer " + token)),
		token == ""}
	var errs []error
	for _, origin := range origins {
		errs = append(errs, g.site.AddTrustedOrigin(origin))
	}
	return g, errors.Join(errs...)
}

// check admits requests of safe methods (RFC 9110, section 9.2.1) as they are.
func (g *guard) check(r *http.Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if err := g.site.Check(r); err != nil {
		return fmt.Errorf("the request comes from a page of another site: %w", errCrossSite)
	}
	if !g.open {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(got[:], g.token[:]) != 1 {
			return fmt.Errorf("want the header Authorization: Bearer with the token of this "+
				"server: %w", errToken)
		}
	}
	if r.Method == http.MethodDelete {
		if r.ContentLength != 0 {
			return fmt.Errorf("body: a DELETE has none: %w", vip.ErrInvalid)
		}
		return nil
	}
	// A form of another site can send text/plain, but not this.
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || !strings.EqualFold(kind, "application/json") {
		return fmt.Errorf("Content-Type %.64q: want application/json: %w",
			r.Header.Get("Content-Type"), errMedia)
	}
	return nil
}
