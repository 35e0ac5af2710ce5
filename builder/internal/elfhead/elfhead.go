// Package elfhead tells the architecture of a program by the head of its file.
package elfhead

import "debug/elf"

// Size is how many bytes of a program say its architecture: e_machine of elf(5) ends there.
const Size = 20

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64,
	"386": elf.EM_386, "arm": elf.EM_ARM, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390,
	"riscv64": elf.EM_RISCV}

// Of returns the machine of an architecture as Go and OCI name it, and whether it is known.
func Of(architecture string) (elf.Machine, bool) {
	m, known := machines[architecture]
	return m, known
}

// Machine returns the machine of the program that begins with head; EM_NONE for a file that is none
// and for a head shorter than Size.
func Machine(head []byte) elf.Machine {
	if len(head) < Size || string(head[:4]) != elf.ELFMAG {
		return elf.EM_NONE
	}
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		return elf.Machine(head[18])<<8 | elf.Machine(head[19])
	}
	return elf.Machine(head[19])<<8 | elf.Machine(head[18])
}
