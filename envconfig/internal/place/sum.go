package place

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"sync/atomic"
)

// CopyBuffer is the size in bytes of the buffer through which a file of any size is copied.
const CopyBuffer = 64 << 10

// Hasher computes the SHA-256 of the bytes that it reads. Get one with [NewHasher] and give it back
// with [Hasher.Release].
type Hasher struct {
	hash.Hash
	sum    [sha256.Size]byte
	buffer [CopyBuffer]byte
}

// spare is a Hasher for the next use: hardly ever are there more than two at once.
var spare atomic.Pointer[Hasher]

// NewHasher returns a Hasher that has read nothing.
func NewHasher() *Hasher {
	h := spare.Swap(nil)
	if h == nil {
		h = &Hasher{Hash: sha256.New()}
	}
	h.Reset()
	return h
}

// Release gives the Hasher back for the next use. The caller must not use it any more.
func (h *Hasher) Release() { spare.Store(h) }

// ReadAll reads until the end and passes each block to each, which may be nil.
func (h *Hasher) ReadAll(from io.Reader, each func([]byte) error) (read int64, err error) {
	for {
		n, err := from.Read(h.buffer[:])
		_, _ = h.Write(h.buffer[:n]) // never fails
		if each != nil && n > 0 {
			if err := each(h.buffer[:n]); err != nil {
				return read, err
			}
		}
		read += int64(n)
		if errors.Is(err, io.EOF) {
			return read, nil
		}
		if err != nil {
			return read, err
		}
	}
}

// Hex returns the SHA-256 of the bytes read, in hexadecimal.
func (h *Hasher) Hex() string { return hex.EncodeToString(h.Sum(h.sum[:0])) }

// Is reports whether want is the SHA-256, in hexadecimal, of the bytes read.
func (h *Hasher) Is(want string) bool {
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], h.Sum(h.sum[:0]))
	return string(text[:]) == want
}

// sized reads a regular file that should have size bytes. A read that brings the last of them and
// had room for more is taken for the end, which saves the read that would say so: of a small file
// it is every other one.
type sized struct {
	io.ReadCloser
	left int64
}

// Read reads as [io.Reader] says.
func (f *sized) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.left -= int64(n); err == nil && f.left == 0 && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Holds reads and closes f, and reports whether its content has that SHA-256. size is the expected
// number of bytes, or -1 if it is not known.
func Holds(f io.ReadCloser, sha256 string, size int64) (bool, error) {
	h := NewHasher()
	defer h.Release()
	_, err := h.ReadAll(&sized{f, size}, nil)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	return h.Is(sha256), nil
}
