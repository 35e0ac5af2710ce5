package place

// Holds reports whether a regular file of the directory, which has that size in bytes, has content
// with that SHA-256. The size is -1 if it is not known.
func (d *Dir) Holds(name, sha256 string, size int64) (bool, error) {
	f, err := d.openRead(name)
	if err != nil {
		return false, err
	}
	return Holds(f, sha256, size)
}

// handle is an open directory.
type handle interface {
	Fd() uintptr
	Close() error
}
