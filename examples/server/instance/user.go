package instance

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// lookupUser reads "user", "user:group" or their numbers, the form of an image's USER, by the
// image's own /etc/passwd and /etc/group. Empty is root.
func lookupUser(root *os.Root, user string) (uid, gid int, err error) {
	if user == "" {
		return 0, 0, nil
	}
	name, group, hasGroup := strings.Cut(user, ":")
	uid, err = strconv.Atoi(name)
	if err != nil {
		fields, err := lookupName(root, "etc/passwd", name)
		if err != nil {
			return 0, 0, fmt.Errorf("user %q: %w", user, err)
		}
		if uid, err = strconv.Atoi(fields[2]); err != nil {
			return 0, 0, fmt.Errorf("user %q: /etc/passwd: %w", user, err)
		}
		if gid, err = strconv.Atoi(fields[3]); err != nil {
			return 0, 0, fmt.Errorf("user %q: /etc/passwd: %w", user, err)
		}
	}
	if !hasGroup {
		return uid, gid, nil
	}
	gid, err = strconv.Atoi(group)
	if err != nil {
		fields, err := lookupName(root, "etc/group", group)
		if err != nil {
			return 0, 0, fmt.Errorf("user %q: %w", user, err)
		}
		if gid, err = strconv.Atoi(fields[2]); err != nil {
			return 0, 0, fmt.Errorf("user %q: /etc/group: %w", user, err)
		}
	}
	return uid, gid, nil
}

// lookupName finds the line of name in a file of colon-separated fields; it has at least four of
// them.
func lookupName(root *os.Root, file, name string) ([]string, error) {
	f, err := root.Open(file)
	if err != nil {
		return nil, fmt.Errorf("give it as a number: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), ":"); fields[0] == name && len(fields) >= 4 {
			return fields, nil
		}
	}
	return nil, fmt.Errorf("%q is not in the image's /%s", name, file)
}
