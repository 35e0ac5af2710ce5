//go:build linux

package transform

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
)

// Every directive of the machine's Nginx and of its modules stands in the table.
func TestTableHasTheDirectivesOfNginx(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(nginx.Modules, "*.so"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	names := map[string]bool{}
	for _, file := range append(files, testbed.NeedProgram(t, "nginx", "nginx")) {
		found := commands(t, file)
		require.NotEmpty(t, found, file)
		for _, name := range found {
			names[name] = true
		}
	}
	require.Greater(t, len(names), 500)
	maps.DeleteFunc(names, func(name string, _ bool) bool {
		_, known := directives()[name]
		return known
	})
	require.Empty(t, slices.Sorted(maps.Keys(names)))
}

var commandName = regexp.MustCompile(`^[a-z][a-z0-9_]+$`)

// commands returns the names in the tables of directives of a program or a module: each row
// (ngx_command_t in ngx_conf_file.h) begins with the length of the name, its address, a word of
// contexts and the address of a function.
func commands(t *testing.T, file string) (found []string) {
	t.Helper()
	f, err := elf.Open(file)
	require.NoError(t, err)
	defer f.Close()
	moved := map[uint64]uint64{} // where an address stands, and the address
	filled := map[uint64]bool{}  // where any address stands, one of another file too
	relative := map[elf.Machine]uint32{elf.EM_X86_64: uint32(elf.R_X86_64_RELATIVE),
		elf.EM_AARCH64: uint32(elf.R_AARCH64_RELATIVE)}[f.Machine]
	require.NotZero(t, relative, "a machine whose relocations this test does not know")
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA {
			continue
		}
		rows, err := s.Data()
		require.NoError(t, err)
		for ; len(rows) >= 24; rows = rows[24:] {
			filled[binary.LittleEndian.Uint64(rows)] = true
			if binary.LittleEndian.Uint32(rows[8:]) == relative {
				moved[binary.LittleEndian.Uint64(rows)] = binary.LittleEndian.Uint64(rows[16:])
			}
		}
	}
	texts := map[*elf.Section][]byte{}
	at := func(address uint64) []byte {
		for _, s := range f.Sections {
			if s.Type == elf.SHT_PROGBITS && s.Addr != 0 && s.Addr <= address &&
				address < s.Addr+s.Size {
				if texts[s] == nil {
					texts[s], err = s.Data()
					require.NoError(t, err)
				}
				return texts[s][address-s.Addr:]
			}
		}
		return nil
	}
	const contexts, function = 8, 16 // behind the address of the name
	for place, name := range moved {
		size, kind, text := at(place-8), at(place+contexts), at(name)
		if !filled[place+function] || filled[place+contexts] || len(size) < 8 || len(kind) < 8 {
			continue
		}
		n := binary.LittleEndian.Uint64(size)
		mask := binary.LittleEndian.Uint64(kind)
		if n < 2 || n >= uint64(len(text)) || bytes.IndexByte(text, 0) != int(n) ||
			mask&0xff010000 == 0 || mask>>32 != 0 || !commandName.Match(text[:n]) {
			continue
		}
		found = append(found, string(text[:n]))
	}
	return found
}
