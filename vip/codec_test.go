package vip

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

func full() *tenure {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	return &tenure{history: 7, rest: &rest{"start of the machine", 8, 9}, Lease: Lease{
		ID: "fd00::1-3", Generation: 3, Addr: netip.MustParseAddr("fd00::1"), Pool: "p",
		RequestID: "r", Count: 2, Peer: "10.0.0.1-3-abcde", State: Cooling, TTL: Forever,
		Owner: Owner{Task: "T", Team: "x", Overrides: map[string]string{"web": "v1",
			"api": "v2"}},
		Acquired: at, Expires: at.Add(1), Ended: at.Add(2), CoolUntil: at.Add(3), Reason: "done",
		Binding: Binding{Since: at.Add(4), Instances: []Instance{{ID: "c",
			Addr: netip.MustParseAddrPort("192.0.2.1:80"), Cluster: "web", Version: "v1",
			Digest: "sha256:0"}}},
	}}
}

func TestTenureRoundTrip(t *testing.T) {
	t.Parallel()
	first := full()
	first.rest, first.Peer = nil, "" // written as version 1
	rests := full()
	rests.Peer = ""
	for _, want := range []*tenure{full(), rests, first, {},
		{Lease: Lease{Addr: netip.MustParseAddr("10.0.0.1"), State: Leased}}} {
		got, err := decodeTenure(encodeTenure(want))
		if err != nil || !reflect.DeepEqual(got, *want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	}
}

func FuzzDecodeTenure(f *testing.F) {
	first := full()
	first.rest, first.Peer = nil, ""
	for _, l := range []*tenure{full(), first, {}} {
		record := encodeTenure(l)
		f.Add(record[:len(record)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, data := range [][]byte{body, binary.LittleEndian.AppendUint32(slices.Clip(body),
			crc32.Checksum(body, castagnoli))} {
			l, err := decodeTenure(data)
			if err != nil {
				continue
			}
			if task := taskIn(data); task != l.Owner.Task {
				t.Errorf("task %q of %+v", task, l)
			}
			again, err := decodeTenure(encodeTenure(&l))
			if err != nil || !reflect.DeepEqual(again, l) {
				t.Errorf("%+v is read again as %+v, %v", l, again, err)
			}
		}
	})
}
