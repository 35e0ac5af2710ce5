package place

import (
	"fmt"
	"io/fs"
	"os"
	"path"
)

// Blocked returns the places that this user cannot write, each with the reason; none when the plan
// can be carried out according to the modes. The error is about a directory that cannot be
// examined.
func (p *Plan) Blocked(t *Tree) ([]string, error) {
	var blocked []string
	seen := map[string]bool{}
	for _, o := range p.Ops {
		dir, err := t.nearest(path.Dir(o.fresh()))
		if err != nil {
			return nil, TargetError("/"+path.Dir(o.fresh()), err)
		}
		if o.Spare != "" {
			if d, base, err := t.Split(o.Path); err == nil {
				if err := d.access(base); err != nil {
					blocked = append(blocked, fmt.Sprintf("/%s (a mount, %v)", o.Path, err))
				}
			}
		} else if o.Kind != Create && stickyProtected(t, o.Path) {
			why := " (of another user, in a directory with the sticky bit)"
			blocked = append(blocked, "/"+o.Path+why)
		}
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if err := writable(t, dir); err != nil {
			blocked = append(blocked, err.Error())
		}
	}
	return blocked, nil
}

// writable returns why files cannot be made and renamed in dir, or nil.
func writable(t *Tree, dir string) error {
	d, err := t.Dir(dir)
	if err != nil {
		return err
	}
	if err := d.access("."); err != nil {
		info, statErr := d.stat()
		if statErr != nil {
			return fmt.Errorf("/%s (%w)", dir, err)
		}
		return fmt.Errorf("/%s (mode %04o%s, %w)", dir, info.Mode().Perm(), owner(info), err)
	}
	return nil
}

// stickyProtected reports whether the sticky bit of the directory keeps this user from replacing
// the target: in a directory such as /tmp only the owner of a file may.
func stickyProtected(t *Tree, name string) bool {
	user := os.Geteuid()
	d, base, err := t.Split(name)
	if user == 0 || err != nil {
		return false
	}
	dir, err := d.stat()
	if err != nil || dir.Mode()&fs.ModeSticky == 0 || uid(dir) == user {
		return false
	}
	file, err := d.Lstat(base)
	return err == nil && uid(file) != user
}
