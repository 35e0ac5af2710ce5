package cutoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/internal/strictjson"
)

// The file of the addresses that left:
//
//	{"gone": [{"addr": "10.0.0.7:8080", "since": "2026-11-30T12:00:00Z",
//	  "owners": [{"cluster": "hello_web", "id": "i1", "version": "v1", "rows": 1}]}]}
type goneFile struct {
	Gone []goneEntry `json:"gone"`
}

type goneEntry struct {
	Addr   netip.AddrPort `json:"addr"`
	Since  time.Time      `json:"since"`
	Owners []ownerEntry   `json:"owners"`
}

type ownerEntry struct {
	Cluster string `json:"cluster"`
	ID      string `json:"id"`
	Version string `json:"version"`
	Rows    int    `json:"rows"`
}

// mostBytes is the limit of the file.
const mostBytes = 16 << 20

// readGone reads the file; one that is not there is empty.
func readGone(name string) (map[netip.AddrPort]left, error) {
	if name == "" {
		return nil, nil
	}
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > mostBytes {
		err = fmt.Errorf("%s: %d bytes, want %d at most", name, info.Size(), mostBytes)
	}
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var in goneFile
	if err := strictjson.Decode(data, &in); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	out := make(map[netip.AddrPort]left, len(in.Gone))
	for _, e := range in.Gone {
		owners := make(map[owner]int, len(e.Owners))
		for _, o := range e.Owners {
			owners[owner{o.Cluster, o.ID, o.Version}] = max(o.Rows, 1)
		}
		out[e.Addr] = left{owners, e.Since}
	}
	return out, nil
}

// writtenGone is the content of the file.
func writtenGone(gone map[netip.AddrPort]left) []byte {
	out := goneFile{Gone: []goneEntry{}}
	for _, addr := range slices.SortedFunc(maps.Keys(gone), netip.AddrPort.Compare) {
		e := goneEntry{Addr: addr, Since: gone[addr].since.UTC(), Owners: []ownerEntry{}}
		for _, o := range slices.SortedFunc(maps.Keys(gone[addr].owners), owner.compare) {
			e.Owners = append(e.Owners, ownerEntry{o.cluster, o.id, o.version,
				gone[addr].owners[o]})
		}
		out.Gone = append(out.Gone, e)
	}
	data, err := json.Marshal(out)
	if err != nil {
		panic(err) // the types here have no such value
	}
	return append(data, '\n')
}
