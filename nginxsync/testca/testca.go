package testca

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

var (
	// ErrInvalid is in the chain of errors about a Config that cannot be right.
	ErrInvalid = errors.New("invalid")
	// ErrDamaged is returned by Open for a file that is not one of Open's.
	ErrDamaged = errors.New("damaged")
	// ErrOutside is returned by Ensure for a name outside of the authority's domains.
	ErrOutside = errors.New("outside the domains")
)

// Config configures an authority. File is required.
type Config struct {
	// File is the path of the authority's key and certificate, readable to the user alone. Open
	// makes it when it is missing.
	File string
	// Names are the DNS names that there will be certificates for, such as "bj.city.example" and
	// "*.city.example". The authority is for their registered domains (publicsuffix.org), so that
	// it stays the same when a host is added. The default is none: an authority for no host.
	Names []string
	// Lifetime is how long a certificate lives. The default is 90 days, which is the most: browsers
	// and auditors distrust certificates that live for years.
	Lifetime time.Duration
	// Logger logs that an authority was made. The default discards.
	Logger *slog.Logger
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

const (
	day         = 24 * time.Hour
	longest     = 90 * day
	caLifetime  = 5 * 365 * day
	clockSkew   = time.Hour // a client's clock may be behind by this
	authorityCN = "Sluice test environment"
)

// CA is a certificate authority. Its methods are safe for concurrent use.
type CA struct {
	config Config
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
}

// Open reads the authority, or makes it: when there is none, when its end is nearer than the
// lifetime of a certificate, and when its domains lack one of cfg.Names. Testers have to trust a
// new one. A file that Open cannot read is ErrDamaged and stays as it is.
func Open(cfg Config) (*CA, error) {
	p := check.Problems{Package: "testca", Sentinel: ErrInvalid}
	p.Require("File", cfg.File != "")
	if p.Duration("Lifetime", &cfg.Lifetime, longest); cfg.Lifetime > longest {
		p.Add("Lifetime", "%s: want %s at most", cfg.Lifetime, longest)
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ca := &CA{config: cfg}
	switch err := ca.read(); {
	case err == nil && ca.serves(cfg.Names):
		return ca, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return ca, ca.create()
}

// serves reports whether the authority can sign for the names, to the end of a certificate's life.
func (ca *CA) serves(names []string) bool {
	for _, domain := range domains(names) {
		if !slices.Contains(ca.cert.PermittedDNSDomains, domain) {
			return false
		}
	}
	return ca.config.Now().Add(ca.config.Lifetime).Before(ca.cert.NotAfter)
}

func (ca *CA) read() error {
	data, err := os.ReadFile(ca.config.File)
	if err != nil {
		return fmt.Errorf("testca: %w", err)
	}
	if ca.key, ca.cert, err = parse(data); err == nil && !ca.cert.IsCA {
		err = errors.New("the certificate is no authority's")
	}
	if err != nil {
		return fmt.Errorf("testca: %s: %w: %w: put it back, or delete it, and testers have to "+
			"trust a new one", ca.config.File, ErrDamaged, err)
	}
	return nil
}

func (ca *CA) create() error {
	now := ca.config.Now()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: authorityCN, Organization: []string{"Sluice"},
			OrganizationalUnit: []string{now.UTC().Format("made 2006-01-02 15:04")}},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         domains(ca.config.Names),
		ExcludedIPRanges: []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}},
	}
	text, err := ca.sign(template, true)
	if err != nil {
		return fmt.Errorf("testca: %w", err)
	}
	if err := atomicfile.Write(ca.config.File, text, 0o600); err != nil {
		return fmt.Errorf("testca: %w", err)
	}
	if ca.key, ca.cert, err = parse(text); err != nil {
		return fmt.Errorf("testca: %w", err)
	}
	ca.config.Logger.Info("made a certificate authority: testers have to trust it",
		"file", ca.config.File, "domains", ca.cert.PermittedDNSDomains,
		"until", ca.cert.NotAfter.Format(time.DateOnly))
	return nil
}

// sign makes a key and its certificate, both as PEM. With self the certificate signs itself.
func (ca *CA) sign(template *x509.Certificate, self bool) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial := make([]byte, 16)
	rand.Read(serial)
	serial[0] = serial[0]&0x7f | 1 // RFC 5280, section 4.1.2.2: positive
	template.SerialNumber = new(big.Int).SetBytes(serial)
	parent, signer := ca.cert, ca.key
	if self {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

// parse reads the texts of sign.
func parse(text []byte) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	first, rest := pem.Decode(text)
	second, rest := pem.Decode(rest)
	if first == nil || second == nil || first.Type != "PRIVATE KEY" ||
		second.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, errors.New("want a private key and a certificate as PEM")
	}
	private, err := x509.ParsePKCS8PrivateKey(first.Bytes)
	if err != nil {
		return nil, nil, errors.New("the private key cannot be read")
	}
	cert, err := x509.ParseCertificate(second.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("the private key is not that of the certificate")
	}
	return key, cert, nil
}

// PEM is the authority's certificate, for its users to trust.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Pin is the SHA-256 of the authority's public key, base64, as Chromium's flag
// --ignore-certificate-errors-spki-list takes it.
func (ca *CA) Pin() string {
	sum := sha256.Sum256(ca.cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Domains are the domains that the authority can sign for, sorted.
func (ca *CA) Domains() []string { return slices.Clone(ca.cert.PermittedDNSDomains) }

// Ensure writes a key and a certificate for the names to a file, with that of the authority after
// them, since a browser that knows the authority by its Pin wants to see it; all as PEM, readable
// to the user alone. It replaces the file atomically. A file that holds such a certificate with a
// third of its life left stays as it is. Ensure reports whether it wrote one: then Nginx has to
// read it. Without names the certificate is for no host, for a server block that has none. A name
// outside of the authority's domains is ErrOutside, and nothing is written.
func (ca *CA) Ensure(file string, names []string) (written bool, err error) {
	for _, name := range names {
		if !within(name, ca.cert.PermittedDNSDomains) {
			return false, fmt.Errorf("testca: %s: %s is in none of %v: %w", file, name,
				ca.cert.PermittedDNSDomains, ErrOutside)
		}
	}
	if ca.keeps(file, names) {
		return false, nil
	}
	now := ca.config.Now()
	text, err := ca.sign(&x509.Certificate{
		Subject:   pkix.Name{Organization: []string{authorityCN}},
		NotBefore: now.Add(-min(clockSkew, ca.config.Lifetime/10)),
		NotAfter:  now.Add(ca.config.Lifetime), DNSNames: names,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, false)
	text = append(text, ca.PEM()...)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(file, text, 0o600)
	}
	if err != nil {
		return false, fmt.Errorf("testca: %w", err)
	}
	return true, nil
}

// keeps reports whether the file holds a good certificate. One that cannot be read is made again.
func (ca *CA) keeps(file string, names []string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	text, ok := bytes.CutSuffix(text, ca.PEM())
	if !ok {
		return false // of another authority, or damaged
	}
	_, cert, err := parse(text)
	now := ca.config.Now()
	return err == nil && cert.CheckSignatureFrom(ca.cert) == nil &&
		slices.Equal(cert.DNSNames, names) && !now.Before(cert.NotBefore) &&
		cert.NotAfter.Sub(now) > ca.config.Lifetime/3
}
