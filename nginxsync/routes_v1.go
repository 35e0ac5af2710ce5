package nginxsync

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// The line form of version 1, which is only read. Its digest is the beginning of the SHA-256 of the
// rows.
//
//	sluice-routes 1 <generation>
//	b <cluster>            the cluster is in the baseline; its instances follow
//	v <vip> <cluster>      the cluster is in the overlay of the VIP; its instances follow
//	end <number of rows>
const routesHeaderV1 = "sluice-routes 1 "

func (r *Routes) unmarshalV1(text []byte) error {
	lines := strings.Split(string(text), "\n")
	bad := func(i int, format string, args ...any) error {
		return fmt.Errorf("routes line %d: %s: %w", i+1, fmt.Sprintf(format, args...), ErrInvalid)
	}
	generation, err := ParseGeneration(strings.TrimPrefix(lines[0], routesHeaderV1))
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
	var row *Row
	for i, line := range lines[1 : len(lines)-2] {
		f := strings.Split(line, " ")
		switch {
		case f[0] == "b" && len(f) == 2:
			row = &Row{Cluster: f[1], Instances: []Instance{}}
		case f[0] == "v" && len(f) == 3:
			vip, err := netip.ParseAddr(f[1])
			if err != nil {
				return bad(i+1, "%s", err)
			}
			row = &Row{VIP: vip, Cluster: f[2], Instances: []Instance{}}
		case row == nil:
			return bad(i+1, "unknown row %q", line)
		default:
			in, err := parseInstance(line)
			if err != nil {
				return bad(i+1, "%s", err)
			}
			row.Instances = append(row.Instances, in)
		}
		if err := s.put(*row); err != nil {
			return bad(i+1, "%s", err)
		}
	}
	sum := sha256.Sum256(appendV1(s.Canonical()))
	if digest := hex.EncodeToString(sum[:8]); digest != generation.Digest {
		return bad(0, "the digest of the rows is %s, not %s: the text was changed", digest,
			generation.Digest)
	}
	if _, aside := s.sift(lenient); len(aside) > 0 {
		return fmt.Errorf("routes: %w", asErrors(aside))
	}
	*r = NewRoutes(generation.Number, s)
	return nil
}

func appendV1(s Snapshot) []byte {
	var b bytes.Buffer
	clusters := func(prefix string, rows map[string][]Instance) {
		for _, cluster := range slices.Sorted(maps.Keys(rows)) {
			b.WriteString(prefix + cluster + "\n")
			b.Write(Row{Instances: rows[cluster]}.appendBody(nil))
		}
	}
	clusters("b ", s.Baseline)
	for _, vip := range slices.SortedFunc(maps.Keys(s.Overlays), netip.Addr.Compare) {
		clusters("v "+vip.String()+" ", s.Overlays[vip])
	}
	return b.Bytes()
}
