package builder_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
)

// program is a program's file of an architecture, in as far as a head says it.
func program(t *testing.T, machine elf.Machine, order binary.ByteOrder) *fstest.MapFile {
	t.Helper()
	head := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine),
		Version: uint32(elf.EV_CURRENT), Ehsize: 64}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	if order == binary.BigEndian {
		head.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	var file bytes.Buffer
	require.NoError(t, binary.Write(&file, order, head))
	return &fstest.MapFile{Data: file.Bytes()}
}

func TestProgram(t *testing.T) {
	t.Parallel()
	programs := fstest.MapFS{
		"tool-linux-amd64": program(t, elf.EM_X86_64, binary.LittleEndian),
		"tool-linux-arm64": program(t, elf.EM_AARCH64, binary.LittleEndian),
		"tool-linux-s390x": program(t, elf.EM_S390, binary.BigEndian),
		"only":             program(t, elf.EM_X86_64, binary.LittleEndian),
		"main.go":          {Data: []byte("package main\n\nfunc main() {}\n")},
	}
	machine := func(data []byte) elf.Machine {
		f, err := elf.NewFile(bytes.NewReader(data))
		require.NoError(t, err)
		return f.Machine
	}
	for _, tc := range []struct {
		name, platform string
		want           elf.Machine
	}{
		{"tool", "linux/amd64", elf.EM_X86_64}, {"tool", "linux/arm64", elf.EM_AARCH64},
		{"tool", "linux/arm64/v8", elf.EM_AARCH64}, {"only", "linux/amd64", elf.EM_X86_64},
		{"tool", "linux/s390x", elf.EM_S390},
	} {
		data, err := builder.Program(programs, tc.name, tc.platform)
		require.NoError(t, err)
		require.Equal(t, tc.want, machine(data), "%s for %s", tc.name, tc.platform)
	}
	for _, tc := range []struct{ name, platform, want string }{
		{"only", "linux/arm64", "only is for EM_X86_64: build it with CGO_ENABLED=0 GOOS=linux " +
			"GOARCH=arm64 go build -o only-linux-arm64"},
		{"tool", "linux/arm/v7", "neither tool-linux-arm-v7 nor tool: build it with " +
			"CGO_ENABLED=0 GOOS=linux GOARCH=arm GOARM=7 go build -o tool-linux-arm-v7"},
		{"main.go", "linux/amd64", "main.go is no program for linux"},
		{"tool", "windows/amd64", "want linux/architecture"},
		{"tool", "linux", "want linux/architecture"},
		{"tool", "linux/vax", "unknown architecture"},
	} {
		_, err := builder.Program(programs, tc.name, tc.platform)
		require.ErrorIs(t, err, builder.ErrInvalid)
		require.ErrorContains(t, err, tc.want)
	}
}

// failing cannot be read.
type failing struct{ fs.FS }

func (failing) Open(string) (fs.File, error) { return nil, errDisk }

var errDisk = errors.New("input/output error")

// A file that cannot be read is not taken for one that is not there.
func TestProgramThatCannotBeRead(t *testing.T) {
	t.Parallel()
	_, err := builder.Program(failing{fstest.MapFS{}}, "envconfig", "linux/amd64")
	require.ErrorIs(t, err, errDisk)
	require.NotErrorIs(t, err, builder.ErrInvalid)
}
