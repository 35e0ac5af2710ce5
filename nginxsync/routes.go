package nginxsync

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Generation names one state of the routes. Number grows with each change that an agent makes;
// Digest is taken from the content, so that the generations of two agents differ even when their
// numbers are equal. The zero value stands for no routes.
type Generation struct {
	Number uint64 `json:"number"`
	Digest string `json:"digest"` // 16 hexadecimal digits
}

// String is the number in 20 digits, "-", and the digest: always of the same length, "" for the
// zero value.
func (g Generation) String() string {
	if g == (Generation{}) {
		return ""
	}
	return fmt.Sprintf("%020d-%s", g.Number, g.Digest)
}

// ParseGeneration is the reverse of Generation.String.
func ParseGeneration(s string) (Generation, error) {
	if s == "" {
		return Generation{}, nil
	}
	number, digest, ok := strings.Cut(s, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || len(number) != 20 || len(digest) != 16 {
		return Generation{}, fmt.Errorf("generation %q, want 20 digits, \"-\", 16 hexadecimal "+
			"digits", s)
	}
	return Generation{Number: n, Digest: digest}, nil
}

// Routes is the unit that a Driver puts into Nginx: a generation and its content. Make one with
// NewRoutes.
type Routes struct {
	Generation Generation
	Snapshot   Snapshot // canonical
}

// NewRoutes numbers a snapshot. The snapshot must be valid.
func NewRoutes(number uint64, s Snapshot) Routes {
	s = s.Canonical()
	sum := sha256.Sum256(appendRows(nil, s))
	return Routes{Generation: Generation{Number: number, Digest: hex.EncodeToString(sum[:8])},
		Snapshot: s}
}

// The line form, in which routes are pushed and the state file is written. One row a line, fields
// separated by one space, so that a reader without a JSON library has an easy task.
//
//	sluice-routes 1 <generation>
//	b <cluster>                                        the cluster is in the baseline
//	i <address> <port> <weight> <version|-> <id>       an instance of the cluster named last
//	s <address> <port> <weight> <version|-> <id>       the same, a backup
//	v <vip> <cluster>                                  the cluster is in the overlay of the VIP
//	end <number of rows>
const routesHeader = "sluice-routes 1 "

// MarshalText is the line form of the routes.
func (r Routes) MarshalText() ([]byte, error) {
	rows := appendRows(nil, r.Snapshot)
	var b bytes.Buffer
	b.Grow(len(rows) + 96)
	fmt.Fprintf(&b, "%s%s\n", routesHeader, r.Generation)
	b.Write(rows)
	fmt.Fprintf(&b, "end %d\n", bytes.Count(rows, []byte("\n")))
	return b.Bytes(), nil
}

func appendRows(b []byte, s Snapshot) []byte {
	b = appendClusters(b, "b ", s.Baseline)
	for _, vip := range slices.SortedFunc(maps.Keys(s.Overlays), netip.Addr.Compare) {
		b = appendClusters(b, "v "+vip.String()+" ", s.Overlays[vip])
	}
	return b
}

func appendClusters(b []byte, prefix string, clusters map[string][]Instance) []byte {
	for _, cluster := range slices.Sorted(maps.Keys(clusters)) {
		b = append(append(append(b, prefix...), cluster...), '\n')
		for _, in := range clusters[cluster] {
			if in.Backup {
				b = append(b, "s "...)
			} else {
				b = append(b, "i "...)
			}
			b = in.Addr.Addr().AppendTo(b)
			b = append(b, ' ')
			b = strconv.AppendUint(b, uint64(in.Addr.Port()), 10)
			b = append(b, ' ')
			b = strconv.AppendInt(b, int64(in.Weight), 10)
			b = append(b, ' ')
			b = append(b, cmp.Or(in.Version, noVersion)...)
			b = append(b, ' ')
			b = append(append(b, in.ID...), '\n')
		}
	}
	return b
}

// UnmarshalText reads the line form. It refuses text that is cut short, that was changed by hand or
// that is not valid. It accepts names that earlier versions wrote and Snapshot.Validate refuses
// now.
func (r *Routes) UnmarshalText(text []byte) error {
	lines := strings.Split(string(text), "\n")
	bad := func(i int, format string, args ...any) error {
		return fmt.Errorf("routes line %d: %s: %w", i+1, fmt.Sprintf(format, args...), ErrInvalid)
	}
	name, ok := strings.CutPrefix(lines[0], routesHeader)
	if !ok {
		return bad(0, "want %q and a generation", strings.TrimSpace(routesHeader))
	}
	generation, err := ParseGeneration(name)
	if err != nil {
		return bad(0, "%s", err)
	}
	if len(lines) < 3 || lines[len(lines)-1] != "" || lines[len(lines)-2] != fmt.Sprintf("end %d",
		len(lines)-3) {
		return bad(len(lines)-1, "want %q as the last line, the text is cut short or changed",
			fmt.Sprintf("end %d", max(len(lines)-3, 0)))
	}
	s := Snapshot{Baseline: map[string][]Instance{},
		Overlays: map[netip.Addr]map[string][]Instance{}}
	var clusters map[string][]Instance
	var cluster string
	for i, line := range lines[1 : len(lines)-2] {
		f := strings.Split(line, " ")
		switch {
		case f[0] == "b" && len(f) == 2:
			clusters, cluster = s.Baseline, f[1]
			clusters[cluster] = []Instance{}
		case f[0] == "v" && len(f) == 3:
			vip, err := netip.ParseAddr(f[1])
			if err != nil {
				return bad(i+1, "%s", err)
			}
			if s.Overlays[vip] == nil {
				s.Overlays[vip] = map[string][]Instance{}
			}
			clusters, cluster = s.Overlays[vip], f[2]
			clusters[cluster] = []Instance{}
		case (f[0] == "i" || f[0] == "s") && len(f) == 6 && clusters != nil:
			addr, err1 := netip.ParseAddr(f[1])
			port, err2 := strconv.ParseUint(f[2], 10, 16)
			weight, err3 := strconv.Atoi(f[3])
			if err := cmp.Or(err1, err2, err3); err != nil {
				return bad(i+1, "%s", err)
			}
			in := Instance{ID: f[5], Addr: netip.AddrPortFrom(addr, uint16(port)), Weight: weight,
				Version: f[4], Backup: f[0] == "s"}
			if in.Version == noVersion {
				in.Version = ""
			}
			clusters[cluster] = append(clusters[cluster], in)
		default:
			return bad(i+1, "unknown row %q", line)
		}
	}
	if _, aside := s.sift(lenient); len(aside) > 0 {
		return fmt.Errorf("routes: %w", asErrors(aside))
	}
	got := NewRoutes(generation.Number, s)
	if got.Generation != generation {
		return bad(0, "the digest of the rows is %s, not %s: the text was changed",
			got.Generation.Digest, generation.Digest)
	}
	*r = got
	return nil
}
