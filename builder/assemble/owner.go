package assemble

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
)

// owner is a numeric user and group.
type owner struct{ uid, gid int }

// parseOwner reads user[:group] or :group, each a number or a name of the image's /etc/passwd or
// /etc/group. A missing user is 0. A missing group is that of a user by name, and for a user by
// number the same number, as in BuildKit.
func (s *stage) parseOwner(spec string) (owner, error) {
	user, group, grouped := strings.Cut(spec, ":")
	var o owner
	if user != "" || !grouped {
		uid, gid, err := s.account("/etc/passwd", user)
		if err != nil {
			return owner{}, fmt.Errorf("user of %s: %w", names.Quote(spec), err)
		}
		o = owner{uid, gid}
	}
	if group != "" {
		gid, _, err := s.account("/etc/group", group)
		if err != nil {
			return owner{}, fmt.Errorf("group of %s: %w", names.Quote(spec), err)
		}
		o.gid = gid
	}
	return o, nil
}

// account returns the number that a name has in a file of accounts, and the number after it, of the
// user's group in /etc/passwd (passwd(5), group(5)). A number stands for itself.
func (s *stage) account(file, name string) (id, group int, err error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), int(n), nil
	}
	text, err := s.readFile(file)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 4 || fields[0] != name || name == "" {
			continue
		}
		n, err := strconv.ParseUint(fields[2], 10, 31)
		if err != nil {
			continue
		}
		g, err := strconv.ParseUint(fields[3], 10, 31)
		if err != nil {
			g = n
		}
		return int(n), int(g), nil
	}
	return 0, 0, fmt.Errorf("%s of the image does not have %s: use a name that is there, or "+
		"uid:gid: %w", file, names.Quote(name), builder.ErrInvalid)
}
