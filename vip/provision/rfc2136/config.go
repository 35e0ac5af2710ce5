package rfc2136

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/vip"
)

const (
	defaultTTL     = 30 * time.Second
	defaultTimeout = 5 * time.Second
)

// Errors of the server. An error of this package is one of these by errors.Is, context.Cause(ctx),
// or of the network: then the server may have made the change, and the next call finds out.
var (
	// ErrRefused: the server does not let the key do this, or is not the primary of the zone.
	ErrRefused = errors.New("refused")
	// ErrTSIG: the server does not accept the signature, or the answer has no good one: another
	// secret, another key name, or clocks that differ by more than five minutes.
	ErrTSIG = errors.New("bad signature")
	// ErrForeign: the name belongs to another owner.
	ErrForeign = errors.New("foreign name")
	// ErrFenced: another driver of the same owner has changed names of the zone since.
	ErrFenced = vip.ErrFenced
	// ErrServer: the server failed.
	ErrServer = errors.New("server failed")
)

// Key signs requests.
type Key struct {
	Name      string // as in the server's configuration
	Secret    string // base64
	Algorithm string // such as "hmac-sha512"; the default is "hmac-sha256"
}

// Config configures a Driver. Server, Zone, Owner and Key are required.
type Config struct {
	// Server is host:port of the primary of the zone.
	Server string
	// Zone is the zone that names are added to.
	Zone string
	// Owner marks the records of this driver among the others in the zone: up to 63 letters,
	// digits, '.', '_' and '-'. After a restart it is the same.
	Owner string
	// Key signs the requests.
	Key Key
	// Names returns the names of a lease: relative to Zone, or in it with a dot at the end. Nil or
	// none gives the lease no name. The default is the task, made a DNS label.
	Names func(lease vip.Lease) []string
	// TTL of the records, from a second to a day: for so long a tester may be led to an address
	// that has another owner, so it is less than Pool.CoolDown. The default is 30 s.
	TTL time.Duration
	// Timeout of one exchange with the server. The default is 5 s.
	Timeout time.Duration
	// Now is the clock of the signatures, which the server compares with its own. The default is
	// time.Now.
	Now func() time.Time
	// Observe, when set, is called after each exchange with the server: "query", "transfer" or
	// "update", how long it took and its error. It must not block. The default is none.
	Observe func(op string, took time.Duration, err error)
}

func (cfg *Config) validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("rfc2136: Config.%s: %s: %w", field,
			fmt.Sprintf(format, args...), vip.ErrInvalid))
	}
	if _, _, err := net.SplitHostPort(cfg.Server); err != nil {
		bad("Server", "%.64q: want host:port", cfg.Server)
	}
	if _, ok := dns.IsDomainName(cfg.Zone); !ok || cfg.Zone == "" || cfg.Zone == "." {
		bad("Zone", "%.64q: want a domain name such as test.example.com", cfg.Zone)
	} else if _, ok := dns.IsDomainName(cfg.fenceName()); !ok {
		bad("Zone", "%.64q: too long for names below it", cfg.Zone)
	}
	if err := names.Version(cfg.Owner); err != nil {
		bad("Owner", "%v", err)
	}
	if _, ok := dns.IsDomainName(cfg.Key.Name); !ok || cfg.Key.Name == "" {
		bad("Key", "name %.64q: want the name that the server has for it", cfg.Key.Name)
	}
	if secret, err := base64.StdEncoding.DecodeString(cfg.Key.Secret); err != nil ||
		len(secret) == 0 {
		bad("Key", "the secret is not base64") // without the secret
	}
	if algorithms[strings.ToLower(cfg.Key.Algorithm)] == "" {
		bad("Key", "algorithm %.64q: want hmac-sha256, hmac-sha384 or hmac-sha512",
			cfg.Key.Algorithm)
	}
	if cfg.TTL != 0 && (cfg.TTL < time.Second || cfg.TTL > 24*time.Hour) {
		bad("TTL", "%s: want 0 (default %s), or a second to a day", cfg.TTL, defaultTTL)
	}
	if cfg.Timeout < 0 {
		bad("Timeout", "%s: want 0 (default %s) or more", cfg.Timeout, defaultTimeout)
	}
	return errors.Join(errs...)
}

// algorithms of TSIG that are not broken; SHA-1 and MD5 are left out (RFC 8945, section 6).
var algorithms = map[string]string{
	"": dns.HmacSHA256, "hmac-sha256": dns.HmacSHA256, "hmac-sha384": dns.HmacSHA384,
	"hmac-sha512": dns.HmacSHA512,
}

func (cfg *Config) setDefaults() {
	cfg.Zone = dns.CanonicalName(cfg.Zone)
	cfg.Key.Name = dns.CanonicalName(cfg.Key.Name)
	cfg.Key.Algorithm = algorithms[strings.ToLower(cfg.Key.Algorithm)]
	cfg.TTL = cmp.Or(cfg.TTL, defaultTTL)
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	if cfg.Names == nil {
		cfg.Names = func(l vip.Lease) []string { return []string{names.DNSLabel(l.Owner.Task)} }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
}

// mark is the text of the TXT record at each name of the driver.
func (cfg *Config) mark() string { return "managed-by=sluice owner=" + cfg.Owner }

// absolute makes a name of Config.Names one of the zone.
func (cfg *Config) absolute(name string) (string, error) {
	full := name
	if !dns.IsFqdn(name) {
		full = name + "." + cfg.Zone
	}
	full = dns.CanonicalName(full)
	if _, ok := dns.IsDomainName(full); !ok || name == "" || !dns.IsSubDomain(cfg.Zone, full) ||
		full == cfg.Zone {
		return "", fmt.Errorf("name %.64q: want one below zone %s: %w", name, cfg.Zone,
			vip.ErrInvalid)
	}
	return full, nil
}

// fenceName is the name of the driver's fence.
func (cfg *Config) fenceName() string {
	return dns.CanonicalName(names.DNSLabel(cfg.Owner) + "." + fenceLabel + "." + cfg.Zone)
}

// nameOf is the name of an address without a lease.
func nameOf(addr netip.Addr) string {
	return "ip-" + strings.NewReplacer(".", "-", ":", "-").Replace(addr.StringExpanded())
}
