package sbom

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// sqlite reads tables of an SQLite database in one pass (sqlite.org/fileformat2.html). It follows
// no write-ahead log: the last program that closes a database puts the log into it.
type sqlite struct {
	r        *io.SectionReader
	pageSize int64
	usable   int64 // bytes of a page without the reserved ones
	budget   int64 // pages that may still be read, so that no loop of pages is followed for ever
}

// maxDepth bounds the depth of a tree. A page points to at least four others, and there are fewer
// than 2^32 pages.
const maxDepth = 16

func openSQLite(r *io.SectionReader) (*sqlite, error) {
	var head [100]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("header of the database: %w", err)
	}
	db := &sqlite{r: r, pageSize: int64(binary.BigEndian.Uint16(head[16:]))}
	if db.pageSize == 1 {
		db.pageSize = 65536
	}
	db.usable = db.pageSize - int64(head[20])
	if string(head[:16]) != "SQLite format 3\x00" || db.pageSize < 512 ||
		db.pageSize&(db.pageSize-1) != 0 || db.usable < 480 {
		return nil, errors.New("no SQLite database")
	}
	return db, nil
}

// blobs calls each with the first blob of every row of a table. The blob belongs to each.
func (db *sqlite) blobs(table string, each func([]byte) error) error {
	// Every page is read once, but for the first: the list of tables begins on it.
	db.budget = db.r.Size()/db.pageSize + 1
	var root int64
	if err := db.rows(1, 0, func(r record) error {
		if r.text(0) == "table" && r.text(1) == table {
			root = r.number(3)
		}
		return nil
	}); err != nil {
		return err
	}
	if root == 0 {
		return fmt.Errorf("there is no table %s", table)
	}
	return db.rows(root, 0, func(r record) error {
		for _, v := range r {
			if v.kind >= 12 && v.kind%2 == 0 {
				return each(v.data)
			}
		}
		return errors.New("a row has no blob")
	})
}

// page reads a page; the first has the number 1.
func (db *sqlite) page(number int64) ([]byte, error) {
	if db.budget--; number < 1 || db.budget < 0 {
		return nil, fmt.Errorf("page %d is missing, or two pages name it", number)
	}
	page := make([]byte, db.pageSize)
	if _, err := db.r.ReadAt(page, (number-1)*db.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", number, err)
	}
	return page[:db.usable], nil
}

// types of pages of a table.
const (
	interiorPage = 5
	leafPage     = 13
)

// rows calls each with the rows of the tree below a page.
func (db *sqlite) rows(number int64, depth int, each func(record) error) error {
	page, err := db.page(number)
	if err != nil {
		return err
	}
	damaged := fmt.Errorf("page %d is damaged", number)
	head := page
	if number == 1 {
		head = page[100:]
	}
	cells, pointers := int(binary.BigEndian.Uint16(head[3:])), 8
	if head[0] == interiorPage {
		pointers = 12
	}
	if depth > maxDepth || pointers+2*cells > len(head) {
		return damaged
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(head[pointers+2*i:]))
		if at+4 > len(page) {
			return damaged
		}
		cell := page[at:]
		switch head[0] {
		case interiorPage:
			err = db.rows(int64(binary.BigEndian.Uint32(cell)), depth+1, each)
		case leafPage:
			var r record
			if r, err = db.row(cell); err == nil {
				err = each(r)
			}
		default:
			return damaged
		}
		if err != nil {
			return err
		}
	}
	if head[0] == interiorPage {
		return db.rows(int64(binary.BigEndian.Uint32(head[8:])), depth+1, each)
	}
	return nil
}

var errRow = errors.New("a row is damaged")

// row reads a cell of a leaf, with its overflow pages.
func (db *sqlite) row(cell []byte) (record, error) {
	size, rest, ok := varint(cell)
	_, rest, second := varint(rest) // the row's number
	if !ok || !second || size < 0 || size > maxRPMHeader || size > db.r.Size() {
		return nil, errRow
	}
	local := size
	if largest := db.usable - 35; size > largest {
		smallest := (db.usable-12)*32/255 - 23
		if local = smallest + (size-smallest)%(db.usable-4); local > largest {
			local = smallest
		}
	}
	if local > int64(len(rest)) || local < size && local+4 > int64(len(rest)) {
		return nil, errRow
	}
	payload := append(make([]byte, 0, size), rest[:local]...)
	for next := rest[local:]; int64(len(payload)) < size; {
		page, err := db.page(int64(binary.BigEndian.Uint32(next)))
		if err != nil {
			return nil, err
		}
		payload = append(payload, page[4:min(db.usable, 4+size-int64(len(payload)))]...)
		next = page
	}
	return parseRecord(payload)
}

// record are the columns of a row.
type record []column

type column struct {
	kind int64 // the serial type
	data []byte
}

// parseRecord reads a header of serial types, and the values.
func parseRecord(payload []byte) (record, error) {
	size, types, ok := varint(payload)
	if !ok || size < int64(len(payload)-len(types)) || size > int64(len(payload)) {
		return nil, errRow
	}
	values := payload[size:]
	types = types[:int64(len(types))-int64(len(values))]
	var r record
	for len(types) > 0 {
		var kind int64
		if kind, types, ok = varint(types); !ok || kind < 0 {
			return nil, errRow
		}
		length := (kind - 12) / 2
		if kind < 12 {
			length = [12]int64{0, 1, 2, 3, 4, 6, 8, 8}[kind]
		}
		if length > int64(len(values)) {
			return nil, errRow
		}
		r = append(r, column{kind, values[:length]})
		values = values[length:]
	}
	return r, nil
}

func (r record) text(i int) string {
	if i >= len(r) || r[i].kind < 12 {
		return ""
	}
	return string(r[i].data)
}

// number is a whole number above 0, and 0 for another value.
func (r record) number(i int) (n int64) {
	switch {
	case i >= len(r) || r[i].kind >= 10 || r[i].kind == 7 || r[i].kind == 8:
		return 0
	case r[i].kind == 9:
		return 1
	}
	for _, b := range r[i].data {
		n = n<<8 | int64(b)
	}
	return max(n, 0)
}

// varint reads a number of one to nine bytes, the highest seven bits first.
func varint(b []byte) (n int64, rest []byte, ok bool) {
	for i := range min(len(b), 9) {
		if i == 8 {
			return n<<8 | int64(b[8]), b[9:], true
		}
		n = n<<7 | int64(b[i]&0x7f)
		if b[i] < 0x80 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}
