// Command debian reads every configuration file that Debian's Nginx packages ship, and the ones of
// the packages that depend on them, and reports which come out of the reader byte for byte.
//
//	go run ./debian            downloads the packages with apt-get into a temporary directory
//	go run ./debian -dir DIR   the same, and keeps them in DIR
//	go run ./debian A.deb…     looks into these
//
// Many a *.conf of a package that depends on Nginx is of another program. A file that the reader
// refuses is named, and given to nginx -t in each context. It exits with 1 when a file comes out
// differently, or when Nginx accepts a file that the reader refuses.
package main

import (
	"archive/tar"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "debian: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("debian", flag.ContinueOnError)
	keep := flags.String("dir", "", "`directory` for the packages")
	if err := flags.Parse(args); err != nil {
		return err
	}
	debs := flags.Args()
	temp, err := os.MkdirTemp("", "sluice-debian-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if len(debs) == 0 {
		if debs, err = download(cmp.Or(*keep, temp)); err != nil {
			return err
		}
	}
	c := count{temp: temp}
	for _, deb := range debs {
		if err := c.deb(deb); err != nil {
			return fmt.Errorf("%s: %w", deb, err)
		}
	}
	for _, line := range c.refused {
		fmt.Println("refused:", line)
	}
	for _, line := range c.differ {
		fmt.Println("differs:", line)
	}
	fmt.Printf("%d packages; %d files of Nginx's own directories and %d other *.conf, %d bytes in "+
		"all; %d come out byte for byte, %d differ, %d are refused, of which Nginx accepts %d\n",
		len(debs), c.nginx, c.other, c.bytes, c.same, len(c.differ), len(c.refused), c.accepted)
	if len(c.differ) > 0 || c.accepted > 0 {
		return errors.New("not every file came out byte for byte")
	}
	return nil
}

// download fetches the packages that apt knows: nginx, its modules, and the packages that depend on
// one of them or recommend it.
func download(dir string) ([]string, error) {
	names, err := words("apt-cache", "pkgnames")
	if err != nil {
		return nil, err
	}
	var wanted []string
	for _, name := range names {
		if name == "nginx" || strings.HasPrefix(name, "nginx-") ||
			strings.HasPrefix(name, "libnginx-mod-") {
			wanted = append(wanted, name)
		}
	}
	args := []string{"rdepends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces",
		"--no-enhances"}
	dependent, err := words("apt-cache", append(args, wanted...)...)
	if err != nil {
		return nil, err
	}
	for _, name := range dependent {
		name = strings.TrimPrefix(name, "|")
		if slices.Contains(names, name) && !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}
	slices.Sort(wanted)
	for _, name := range wanted {
		cmd := exec.Command("apt-get", "download", "-q", name)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Printf("not to be had: %s: %.200s\n", name, strings.TrimSpace(string(out)))
		}
	}
	return filepath.Glob(filepath.Join(dir, "*.deb"))
}

func words(name string, args ...string) ([]string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return strings.Fields(string(out)), nil
}

type count struct {
	temp                         string
	nginx, other, same, accepted int
	bytes                        int64
	refused, differ              []string
}

// deb looks at the files of one package.
func (c *count) deb(name string) error {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	pkg, _, _ := strings.Cut(filepath.Base(name), "_")
	for r := tar.NewReader(out); ; {
		h, err := r.Next()
		if err == io.EOF {
			return cmd.Wait()
		}
		if err != nil {
			return errors.Join(err, cmd.Wait())
		}
		inside := ours(h.Name)
		if h.Typeflag != tar.TypeReg || !inside && path.Ext(h.Name) != ".conf" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(r, 64<<20))
		if err != nil {
			return err
		}
		c.file(pkg+": "+path.Clean(h.Name), string(text), inside)
	}
}

// ours reports whether the file is of an Nginx directory, where all files are configuration.
func ours(name string) bool {
	name = path.Clean("/" + name)
	return strings.HasPrefix(name, "/etc/nginx/") ||
		strings.HasPrefix(name, "/usr/share/nginx/modules-available/")
}

func (c *count) file(name, text string, inside bool) {
	c.bytes += int64(len(text))
	if inside {
		c.nginx++
	} else {
		c.other++
	}
	f, err := conf.ParseFile(name, text)
	switch {
	case err != nil:
		c.refused = append(c.refused, err.Error())
		if c.accepts(text) {
			c.accepted++
			c.refused = append(c.refused, "nginx accepts "+name)
		}
	case f.Rebuild() != text:
		c.differ = append(c.differ, name)
	default:
		c.same++
	}
}

// accepts reports whether Nginx takes the text in any context.
func (c *count) accepts(text string) bool {
	file, main := filepath.Join(c.temp, "text"), filepath.Join(c.temp, "nginx.conf")
	if os.WriteFile(file, []byte(text), 0o600) != nil {
		return false
	}
	for _, around := range []string{"%s", "events {} %s", "events {} http { %s }",
		"events {} http { server { %s } }", "events {} http { server { location / { %s } } }"} {
		config := "pid " + c.temp + "/pid;\n" + fmt.Sprintf(around, "include "+file+";") + "\n"
		if os.WriteFile(main, []byte(config), 0o600) == nil && exec.Command("nginx", "-t", "-q",
			"-p", c.temp, "-c", main, "-e", "/dev/null").Run() == nil {
			return true
		}
	}
	return false
}
