package nginxsync

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Row lists the instances that serve one cluster in a scope: on a VIP, in a branch, or in the
// baseline. Its line form is
//
//	r <vip|@branch|-> <cluster> <sum> <bytes>        the head; so many bytes of instances follow
//	i <address> <port> <weight> <version|-> <id>     an instance
//	s <address> <port> <weight> <version|-> <id>     a backup
//
// and for a row that goes
//
//	d <vip|@branch|-> <cluster>
//
// A row of the cluster "=" has a note in the place of instances: about the scope of a VIP, in the
// scope "*" about the pools, and in the scope of "+" and a task about its VIP. The sum is the first
// 8 bytes of the MD5 of the scope, a space, the cluster, a line break and the instances or the
// note: it finds damage, not forgery, and Nginx can compute MD5 without another module. The
// VIP is written as Nginx writes $server_addr.
type Row struct {
	VIP       netip.Addr // the zero Addr for the baseline and for a branch
	Branch    string     // "*" for the pools, "+" and the task for its VIP; else as in SetAside
	Cluster   string
	Instances []Instance // canonical, as Snapshot.Canonical returns them
	Note      string     // of the cluster "=", which has no instances
	Gone      bool       // the row goes; it has no instances
}

// nginxAddr is the address as Nginx writes $server_addr (ngx_inet6_ntop): the last four bytes of
// an IPv6 address that begins with 12 bytes of zeros are written as those of an IPv4 address, but
// for the addresses up to ::ff and the addresses below ::1:0 that end in 01.
func nginxAddr(a netip.Addr) string {
	if !a.Is6() || a.Is4In6() {
		return a.String()
	}
	b := a.As16()
	if !bytes.Equal(b[:12], make([]byte, 12)) || b[12] == 0 && b[13] == 0 &&
		(b[14] == 0 || b[15] == 1) {
		return a.String()
	}
	return fmt.Sprintf("::%d.%d.%d.%d", b[12], b[13], b[14], b[15])
}

// scope is "-", the VIP, "@" and the branch, "*", or "+" and the task.
func (r Row) scope() string {
	switch {
	case r.VIP.IsValid():
		return nginxAddr(r.VIP)
	case r.Branch == "":
		return "-"
	case r.Branch == poolScope || r.Branch[0] == taskScope[0]:
		return r.Branch
	}
	return "@" + r.Branch
}

func (r Row) appendKey(b []byte) []byte {
	return append(append(append(b, r.scope()...), ' '), r.Cluster...)
}

func (r Row) appendBody(b []byte) []byte {
	if r.Cluster == noteCluster {
		return append(b, r.Note...)
	}
	for _, in := range r.Instances {
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
	return b
}

// sum is the sum of the row with that body.
func (r Row) sum(body []byte) uint64 {
	var buf [256]byte
	b := append(r.appendKey(buf[:0]), '\n')
	sum := md5.Sum(append(b, body...))
	return binary.BigEndian.Uint64(sum[:8])
}

// appendTo appends the line form.
func (r Row) appendTo(b []byte) []byte {
	if r.Gone {
		return append(r.appendKey(append(b, "d "...)), '\n')
	}
	var buf [512]byte
	body := r.appendBody(buf[:0])
	return r.appendSummed(b, r.sum(body), body)
}

// appendSummed appends the line form of a row that has that sum and body.
func (r Row) appendSummed(b []byte, sum uint64, body []byte) []byte {
	var bytes [8]byte
	binary.BigEndian.PutUint64(bytes[:], sum)
	b = append(r.appendKey(append(b, "r "...)), ' ')
	b = hex.AppendEncode(b, bytes[:])
	b = strconv.AppendInt(append(b, ' '), int64(len(body)), 10)
	return append(append(b, '\n'), body...)
}

// parser reads line forms.
type parser struct {
	rest string
	line int // of rest
}

func (p *parser) bad(format string, args ...any) error {
	return fmt.Errorf("routes line %d: %s: %w", p.line-1, fmt.Sprintf(format, args...), ErrInvalid)
}

// next takes a line away. Without another one it returns "".
func (p *parser) next() string {
	line, rest, ok := strings.Cut(p.rest, "\n")
	p.line++
	if !ok {
		p.rest = ""
		return ""
	}
	p.rest = rest
	return line
}

// row takes one row away.
func (p *parser) row() (row Row, err error) {
	line := p.next()
	f := strings.Split(line, " ")
	if len(f) < 3 || f[0] != "r" && f[0] != "d" || (f[0] == "d") != (len(f) == 3) ||
		f[0] == "r" && len(f) != 5 {
		return row, p.bad("%q, want a row or the end: the text is cut short or changed",
			line[:min(len(line), 64)])
	}
	branch, isBranch := strings.CutPrefix(f[1], "@")
	switch {
	case f[1] == "-":
	case f[2] == noteCluster && (f[1] == poolScope || strings.HasPrefix(f[1], taskScope)):
		row.Branch = f[1]
	case isBranch && f[2] != noteCluster:
		row.Branch = branch
	default:
		if row.VIP, err = netip.ParseAddr(f[1]); err != nil {
			return row, p.bad("%s", err)
		}
	}
	row.Cluster, row.Gone = f[2], f[0] == "d"
	if row.Gone {
		return row, nil
	}
	size, err := strconv.Atoi(f[4])
	if err != nil || size < 0 || size > len(p.rest) {
		return row, p.bad("%q bytes of instances, the text has %d: it is cut short", f[4],
			len(p.rest))
	}
	head, end := p.line-1, len(p.rest)-size
	if got := fmt.Sprintf("%016x", row.sum([]byte(p.rest[:size]))); got != f[3] {
		return row, p.bad("the sum of the row is %s, not %s: it was changed", got, f[3])
	}
	if row.Cluster == noteCluster {
		row.Note, p.rest = p.rest[:size], p.rest[size:]
		p.line += strings.Count(row.Note, "\n")
		return row, nil
	}
	row.Instances = []Instance{}
	for len(p.rest) > end {
		in, err := parseInstance(p.next())
		if err != nil || len(p.rest) < end {
			return row, p.bad("row at line %d: %v", head, err)
		}
		row.Instances = append(row.Instances, in)
	}
	return row, nil
}

func parseInstance(line string) (in Instance, err error) {
	f := strings.Split(line, " ")
	if len(f) != 6 || f[0] != "i" && f[0] != "s" {
		return in, fmt.Errorf("%q, want an instance", line)
	}
	addr, err1 := netip.ParseAddr(f[1])
	port, err2 := strconv.ParseUint(f[2], 10, 16)
	weight, err3 := strconv.Atoi(f[3])
	if err := cmp.Or(err1, err2, err3); err != nil {
		return in, err
	}
	in = Instance{ID: f[5], Addr: netip.AddrPortFrom(addr, uint16(port)), Weight: weight,
		Version: f[4], Backup: f[0] == "s"}
	if in.Version == noVersion {
		in.Version = ""
	}
	return in, nil
}
