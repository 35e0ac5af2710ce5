package sbom

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxRPMHeader bounds the header of one installed package, in bytes. That of a kernel with all its
// files has some 3 MB.
const maxRPMHeader = 64 << 20

// tags of a header that a package URL needs (rpm, include/rpm/rpmtag.h).
const (
	rpmName    = 1000
	rpmVersion = 1001
	rpmRelease = 1002
	rpmEpoch   = 1003
	rpmArch    = 1022
)

// types of the values of tags (rpm, docs/manual/format_header.md).
const (
	rpmInt32  = 4
	rpmString = 6
)

// rpmHeader reads the header of a package as rpm's databases hold it: the number of the index's
// entries, the size of the data, the entries, the data. The licence is left out: before 2023 the
// distributions had abbreviations of their own for it.
func rpmHeader(header []byte) (Package, error) {
	if len(header) < 8 {
		return Package{}, errors.New("header of a package: fewer than 8 bytes")
	}
	entries, size := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
	index := header[8:]
	if uint64(entries)*16+uint64(size) > uint64(len(index)) {
		return Package{}, fmt.Errorf("header of a package: %d entries and %d bytes of data do not "+
			"fit into %d bytes", entries, size, len(header))
	}
	data := index[entries*16:][:size]
	p := Package{Type: "rpm"}
	var release string
	for ; entries > 0; entries, index = entries-1, index[16:] {
		tag, kind := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[4:])
		offset := binary.BigEndian.Uint32(index[8:])
		if offset > size {
			continue // the region's own entry has an offset of another kind
		}
		value := data[offset:]
		switch {
		case tag == rpmEpoch && kind == rpmInt32 && len(value) >= 4:
			p.Epoch = strconv.FormatUint(uint64(binary.BigEndian.Uint32(value)), 10)
		case kind != rpmString:
		case tag == rpmName:
			p.Name = cString(value)
		case tag == rpmVersion:
			p.Version = cString(value)
		case tag == rpmRelease:
			release = cString(value)
		case tag == rpmArch:
			p.Arch = cString(value)
		}
	}
	if p.Name == "" || p.Version == "" || release == "" {
		return Package{}, errors.New("header of a package: no name, version or release")
	}
	p.Version += "-" + release
	return p, nil
}

// cString is the text before the first zero byte.
func cString(data []byte) string {
	before, _, _ := bytes.Cut(data, []byte{0})
	return string(before)
}

// rpmPackages reads the headers that each calls its argument with. A key that rpm trusts is stored
// as a package, too, and is none.
func rpmPackages(each func(func(header []byte) error) error) (found []Package, err error) {
	err = each(func(header []byte) error {
		p, err := rpmHeader(header)
		if err == nil && p.Name != "gpg-pubkey" {
			found = append(found, p)
		}
		return err
	})
	return found, err
}

// rpmSQLite reads rpmdb.sqlite, the database of rpm 4.16 and newer: Fedora, RHEL 9.
func rpmSQLite(r *io.SectionReader) ([]Package, error) {
	return rpmPackages(func(each func([]byte) error) error {
		db, err := openSQLite(r)
		if err != nil {
			return err
		}
		return db.blobs("Packages", each)
	})
}

// rpmNDB reads Packages.db, the database of SUSE's rpm (rpm, lib/backend/ndb/rpmpkg.c): a header of
// 32 bytes, pages of slots, and blobs, which slots name by their place in units of 16 bytes.
func rpmNDB(r *io.SectionReader) ([]Package, error) {
	return rpmPackages(func(each func([]byte) error) error {
		var head [32]byte
		if _, err := r.ReadAt(head[:], 0); err != nil {
			return fmt.Errorf("header of the database: %w", err)
		}
		word := func(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i*4:]) }
		pages := int64(word(head[:], 3))
		if string(head[:4]) != "RpmP" || word(head[:], 1) != 0 || pages*4096 > r.Size() {
			return errors.New("no database of rpm in the form ndb, version 0")
		}
		for at := int64(32); at < pages*4096; at += 16 {
			var slot, blob [16]byte
			if _, err := r.ReadAt(slot[:], at); err != nil {
				return fmt.Errorf("slot at byte %d: %w", at, err)
			}
			if string(slot[:4]) != "Slot" {
				return fmt.Errorf("byte %d begins no slot", at)
			}
			if word(slot[:], 1) == 0 {
				continue // free
			}
			start := int64(word(slot[:], 2)) * 16
			if _, err := r.ReadAt(blob[:], start); err != nil {
				return fmt.Errorf("package at byte %d: %w", start, err)
			}
			size := int64(word(blob[:], 3))
			if string(blob[:4]) != "BlbS" || word(blob[:], 1) != word(slot[:], 1) ||
				size > maxRPMHeader || size > r.Size()-start-16 {
				return fmt.Errorf("byte %d begins no package", start)
			}
			header := make([]byte, size)
			if _, err := r.ReadAt(header, start+16); err != nil {
				return fmt.Errorf("package at byte %d: %w", start, err)
			}
			if err := each(header); err != nil {
				return err
			}
		}
		return nil
	})
}
