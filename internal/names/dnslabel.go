package names

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
)

const (
	maxLabel = 63
	hashLen  = 12 // characters of base32: 60 bits
	hashMark = 'x'
)

// digits are those of base32hex (RFC 4648) in lower case.
const digits = "0123456789abcdefghijklmnopqrstuv"

// DNSLabel maps a name to a DNS label (RFC 1123: 1 to 63 lower-case letters, digits and hyphens,
// with a letter or digit at both ends). A name that is a label stays as it is. In any other one
// capitals become small, other bytes become "-", and "-x" and 12 characters of its SHA-256 follow,
// so that "a_b" and "a.b" have different labels; the label is cut to make room for them. A name
// that looks like such a label is mapped, too, so two names share a label only if 60 bits of their
// hashes are equal.
//
// The label may begin with a digit.
func DNSLabel(name string) string {
	if isLabel(name) && !isHashed(name) {
		return name
	}
	hash := string(hashMark) + hashOf(name)
	stem := name[:min(len(name), maxLabel-1-len(hash))]
	stem = strings.Trim(strings.Map(labelByte, stem), "-")
	if stem == "" {
		return hash
	}
	return stem + "-" + hash
}

// hashOf returns the first hashLen characters of the SHA-256 in base32hex. It does without
// encoding/base32, which would add its tables to the start of every program that checks a name.
func hashOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	bits := binary.BigEndian.Uint64(sum[:])
	var hash [hashLen]byte
	for i := range hash {
		hash[i] = digits[bits>>59]
		bits <<= 5
	}
	return string(hash[:])
}

// labelByte maps a character to one of a label; characters outside ASCII become one hyphen each.
func labelByte(r rune) rune {
	switch {
	case 'A' <= r && r <= 'Z':
		return r - 'A' + 'a'
	case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
		return r
	}
	return '-'
}

func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLower(c) && !isDigit(c) && c != '-' {
			return false
		}
	}
	return true
}

// isHashed reports whether the label has the shape of one that DNSLabel made with a hash.
func isHashed(label string) bool {
	at := len(label) - hashLen - 1
	if at < 0 || label[at] != hashMark || at > 0 && label[at-1] != '-' {
		return false
	}
	return strings.Trim(label[at+1:], digits) == ""
}
