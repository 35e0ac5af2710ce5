package vip

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Details are a provider's data about a ready-made VIP.
type Details struct {
	Region      string       `json:"region,omitempty"`
	RealServers []netip.Addr `json:"realServers,omitempty"` // machines that the address leads to
	Ports       []uint16     `json:"ports,omitempty"`       // on which it answers; none: not known
}

// ReadList makes a pool of a list of ready-made VIPs, as comma-separated values with a line of
// column names:
//
//	vip,region,ports,real_servers,reserved
//	10.58.0.1,bj,80 443,192.0.2.1 192.0.2.2,
//	10.58.0.2,bj,80,192.0.2.1,used by the gateway
//
// Only the column vip is required, the order is free, and a column that is not one of these is
// refused. Ports and real servers are separated by spaces. A value in the column reserved keeps the
// address from being handed out. Every fault is named with its line.
func ReadList(name string, r io.Reader) (Pool, error) {
	rows := csv.NewReader(r)
	rows.TrimLeadingSpace, rows.Comment = true, '#'
	header, err := rows.Read()
	if err != nil {
		return Pool{}, fmt.Errorf("pool %q: list: column names: %w", name, err)
	}
	p := Pool{Name: name, Reserved: map[netip.Addr]string{}, Details: map[netip.Addr]Details{}}
	if err := checkHeader(header); err != nil {
		return Pool{}, fmt.Errorf("pool %q: list: %w", name, err)
	}
	var addrs []netip.Addr
	var errs []error
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		line, _ := rows.FieldPos(0)
		if err != nil {
			errs = append(errs, err)
			break
		}
		addr, err := p.addRow(header, row)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", line, err))
			continue
		}
		addrs = append(addrs, addr)
	}
	p.Ranges = ranges(addrs)
	if err := errors.Join(errs...); err != nil {
		return Pool{}, fmt.Errorf("pool %q: list: %w", name, err)
	}
	if _, err := layOut(p); err != nil {
		return Pool{}, err
	}
	return p, nil
}

func checkHeader(header []string) error {
	known := []string{"vip", "region", "ports", "real_servers", "reserved"}
	for i, column := range header {
		if !slices.Contains(known, column) || slices.Contains(header[:i], column) {
			return fmt.Errorf("column %q: want each of %s once at most", column,
				strings.Join(known, ", "))
		}
	}
	if !slices.Contains(header, "vip") {
		return errors.New("column vip is missing")
	}
	return nil
}

func (p *Pool) addRow(header, row []string) (addr netip.Addr, err error) {
	var d Details
	var reason string
	for i, column := range header {
		switch column {
		case "vip":
			addr, err = netip.ParseAddr(row[i])
		case "region":
			d.Region = row[i]
		case "reserved":
			reason = row[i]
		case "ports":
			for _, text := range strings.Fields(row[i]) {
				port, portErr := strconv.ParseUint(text, 10, 16)
				if portErr != nil || port == 0 {
					return addr, fmt.Errorf("port %q: want 1 to 65535", text)
				}
				d.Ports = append(d.Ports, uint16(port))
			}
		case "real_servers":
			for _, text := range strings.Fields(row[i]) {
				server, err := netip.ParseAddr(text)
				if err != nil {
					return addr, fmt.Errorf("real server: %w", err)
				}
				d.RealServers = append(d.RealServers, server)
			}
		}
		if err != nil {
			return addr, err
		}
	}
	if err := (Range{addr, addr}).validate(); err != nil {
		return addr, err
	}
	if _, double := p.Details[addr]; double {
		return addr, fmt.Errorf("address %s stands in the list before", addr)
	}
	p.Details[addr] = d
	if reason != "" {
		p.Reserved[addr] = reason
	}
	return addr, nil
}

// ranges joins addresses that follow each other.
func ranges(addrs []netip.Addr) []Range {
	slices.SortFunc(addrs, netip.Addr.Compare)
	var joined []Range
	for _, a := range addrs {
		if n := len(joined); n > 0 && joined[n-1].Last.Next() == a {
			joined[n-1].Last = a
			continue
		}
		joined = append(joined, Range{a, a})
	}
	return joined
}
