//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type bench struct{ dir, envconfig, check string }

type peer struct {
	name    string
	command []string
}

// sample is one run of a command.
type sample struct{ wall, cpu time.Duration }

func (b *bench) env(extra ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "DEPLOY_ENV=production",
		"ENVCONFIG_QUIET=true"}, extra...)
}

func once(env []string, args ...string) (sample, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	err := cmd.Run()
	s := sample{wall: time.Since(begin)}
	if cmd.ProcessState != nil {
		s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	if err != nil {
		return s, fmt.Errorf("%v: %w: %s", args, err, stderr.Bytes())
	}
	return s, nil
}

func median(samples []sample) sample {
	wall, cpu := make([]time.Duration, len(samples)), make([]time.Duration, len(samples))
	for i, s := range samples {
		wall[i], cpu[i] = s.wall, s.cpu
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	return sample{wall[len(wall)/2], cpu[len(cpu)/2]}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}

func size(name string) string {
	found, err := exec.LookPath(name)
	if err != nil {
		return "-"
	}
	info, err := os.Stat(found)
	if err != nil {
		return "-"
	}
	return fmt.Sprintf("%.2f MB", float64(info.Size())/1e6)
}

// tree lays out n files of 2 kB in directories of 100, and the manifest, and returns the flags for
// it.
func (b *bench) tree(name string, n, bytesEach int, spec string) (root string, flags []string,
	err error) {
	root = filepath.Join(b.dir, name)
	content := bytes.Repeat([]byte("x"), bytesEach)
	for i := range n {
		file := filepath.Join(root, fmt.Sprintf("etc/envconfig/envs/production/opt/conf/d%d/f%d",
			i/100, i))
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return "", nil, err
			}
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return "", nil, err
		}
	}
	if spec != "" {
		if err := os.WriteFile(filepath.Join(root, "etc/envconfig/envconfig.json"), []byte(spec),
			0o644); err != nil {
			return "", nil, err
		}
	}
	flags = []string{"--root", root, "--source", root + "/etc/envconfig", "--state",
		root + "/run/envconfig"}
	_, err = once(b.env(), append([]string{b.envconfig, "manifest", "--bake"}, flags...)...)
	return root, flags, err
}

// firstStart puts a file in place, where the other starts find it there.
const firstStart = "envconfig exec, first start"

// starts compares the times until a command that does nothing has run, and the sizes of the
// binaries.
func (b *bench) starts(rounds int, peers []peer) error {
	root, flags, err := b.tree("start", 1, 2000, "")
	if err != nil {
		return err
	}
	own := append([]string{b.envconfig}, flags...)
	all := append([]peer{{"bare exec", nil}}, peers...)
	all = append(all, peer{goFloor, []string{filepath.Join(b.dir, "floor")}},
		peer{"envconfig exec", append(slices.Clone(own), "--init=false", "--")},
		peer{"envconfig init", append(slices.Clone(own), "--init=true", "--")},
		peer{firstStart, append(slices.Clone(own), "--init=false", "--")})
	samples := make([][]sample, len(all))
	for round := range rounds + 5 {
		for i, p := range all {
			if p.name == firstStart {
				if err := errors.Join(os.RemoveAll(filepath.Join(root, "opt")),
					os.RemoveAll(filepath.Join(root, "run"))); err != nil {
					return err
				}
			}
			s, err := once(b.env(), append(slices.Clone(p.command), "/bin/true")...)
			if err != nil {
				return err
			}
			if round >= 5 {
				samples[i] = append(samples[i], s)
			}
		}
	}
	bare := median(samples[0])
	fmt.Printf("start of /bin/true, median of %d\n\n| entrypoint | wall | over bare exec | "+
		"processor | size |\n| --- | --- | --- | --- | --- |\n", rounds)
	for i, p := range all {
		m, binary := median(samples[i]), "-"
		if len(p.command) > 0 {
			binary = size(p.command[0])
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", p.name, ms(m.wall), ms(m.wall-bare.wall),
			ms(m.cpu), binary)
	}
	fmt.Println()
	return nil
}

// resident shows the memory of an entrypoint while the service runs.
func (b *bench) resident(peers []peer) error {
	_, flags, err := b.tree("resident", 1, 2000, "")
	if err != nil {
		return err
	}
	all := append(slices.Clone(peers), peer{"envconfig init",
		append(append([]string{b.envconfig}, flags...), "--init=true", "--")})
	fmt.Print("memory while the service runs\n\n| entrypoint | resident | threads |\n| --- | --- " +
		"| --- |\n")
	for _, p := range all {
		cmd := exec.Command(p.command[0], append(slices.Clone(p.command[1:]), "sleep", "60")...)
		cmd.Env = b.env()
		if err := cmd.Start(); err != nil {
			return err
		}
		for !hasChild(cmd.Process.Pid) {
			time.Sleep(time.Millisecond)
		}
		// until the memory that only the start has needed is given back
		time.Sleep(300 * time.Millisecond)
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if err != nil {
			return err
		}
		kb, _ := strconv.Atoi(strings.TrimSuffix(field(string(status), "VmRSS"), " kB"))
		fmt.Printf("| %s | %.1f MB | %s |\n", p.name, float64(kb)/1000,
			field(string(status), "Threads"))
	}
	fmt.Println()
	return nil
}

func hasChild(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return true
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range tasks {
		more, _ := os.ReadFile(name)
		data = append(data, more...)
	}
	child, _, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	name, _ := os.ReadFile("/proc/" + child + "/comm")
	return strings.TrimSpace(string(name)) == "sleep"
}

func field(status, name string) string {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// activations compares putting n files in place with cp -r, and shows the second start and pointer
// mode.
func (b *bench) activations(n, rounds int) error {
	root, flags, err := b.tree(fmt.Sprintf("copy%d", n), n, 2000, "")
	if err != nil {
		return err
	}
	_, pointer, err := b.tree(fmt.Sprintf("pointer%d", n), n, 2000,
		`{"paths":[{"match":"opt/conf/**","action":"pointer"}]}`)
	if err != nil {
		return err
	}
	activate := func(flags []string, more ...string) []string {
		return slices.Concat([]string{b.envconfig, "activate"}, flags, more)
	}
	// Each round has directories of its own: ext4 is slow to hand out the inodes of files that were
	// removed a moment ago.
	names := []string{"cp -r", "copy, first start", "copy, second start", "pointer"}
	samples := make([][]sample, len(names))
	for round := range rounds {
		target, copied := filepath.Join(b.dir, fmt.Sprintf("target%d-%d", n, round)),
			filepath.Join(b.dir, fmt.Sprintf("cp%d-%d", n, round))
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		first := activate(flags, "--root", target, "--state", filepath.Join(target, "run"))
		for i, args := range [][]string{{"cp", "-r",
			filepath.Join(root, "etc/envconfig/envs/production"), copied}, first, first,
			activate(pointer)} {
			s, err := once(b.env(), args...)
			if err != nil {
				return err
			}
			samples[i] = append(samples[i], s)
		}
	}
	base := median(samples[0])
	fmt.Printf("%d files of 2 kB, median of %d\n\n| | wall | of cp -r | processor | of cp -r "+
		"|\n| --- | --- | --- | --- | --- |\n", n, rounds)
	for i, name := range names {
		m := median(samples[i])
		fmt.Printf("| %s | %s | %.2f | %s | %.2f |\n", name, ms(m.wall),
			float64(m.wall)/float64(base.wall), ms(m.cpu), float64(m.cpu)/float64(base.cpu))
	}
	fmt.Println()
	return nil
}

// bigFile shows the peak of memory for a file of 64 MiB.
func (b *bench) bigFile() error {
	root, flags, err := b.tree("big", 1, 64<<20, "")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(root, "opt")); err != nil {
		return err
	}
	peak, err := peakOf(b.env(), append([]string{b.envconfig, "activate"}, flags...)...)
	if err != nil {
		return err
	}
	fmt.Printf("one file of 64 MiB: peak of memory %.1f MB\n\n", peak)
	return nil
}

const peakCommand = "peak-of"

// peakOf runs a command from a fresh process, since a process begins with the peak of the one that
// forked it.
func peakOf(env []string, args ...string) (megabytes float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, append([]string{peakCommand}, args...)...)
	cmd.Env = env
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%v: %w: %s", args, err, out)
	}
	kb, err := strconv.Atoi(strings.TrimSpace(string(out)))
	return float64(kb) / 1000, err
}

func peakHelper(args []string) {
	cmd := exec.Command(args[0], args[1:]...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 1) {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	os.Exit(0)
}

// drain counts how often a service behind a start script without exec comes to finish its work
// after SIGTERM.
func (b *bench) drain(n int, peers []peer) error {
	_, flags, err := b.tree("drain", 1, 2000, "")
	if err != nil {
		return err
	}
	script := filepath.Join(b.dir, "startup.sh")
	service := filepath.Join(b.dir, "service.sh")
	if err := errors.Join(
		os.WriteFile(script, []byte(fmt.Sprintf("sh %s\necho went on\n", service)), 0o755),
		os.WriteFile(service, []byte("trap 'kill $!; sleep 0.3; echo DRAINED; exit 0' "+
			"TERM\nsleep 60 &\necho READY\nwait\n"), 0o755),
	); err != nil {
		return err
	}
	all := append(slices.Clone(peers), peer{"tini -g", []string{"tini", "-g", "--"}},
		peer{"catatonit -g", []string{"catatonit", "-g", "--"}})
	fmt.Print("service behind \"sh startup.sh\" that needs 0.3 s after SIGTERM, as process " +
		"1\n\n| entrypoint | finished its work |\n| --- | --- |\n")
	if s6, err := b.supervised(script); err != nil {
		return err
	} else if s6 != "" {
		all = append(all, peer{"s6-svscan", []string{"s6-svscan", s6}})
	}
	for _, p := range append(all, peer{"envconfig", append(append([]string{b.envconfig}, flags...),
		"--")}) {
		if _, err := exec.LookPath(p.command[0]); err != nil {
			continue
		}
		runs, drained := max(1, n/10), 0
		if p.name == "envconfig" {
			runs = n
		}
		for range runs {
			args := append(slices.Clone(p.command), "sh", script)
			if p.name == "s6-svscan" {
				args = p.command // the script is in its directory
			}
			ok, err := b.stop(args)
			if err != nil {
				return err
			}
			if ok {
				drained++
			}
		}
		fmt.Printf("| %s | %d of %d |\n", p.name, drained, runs)
	}
	fmt.Println()
	return nil
}

// supervised lays the script out as a service of s6, whose scanner is the heart of s6-overlay;
// empty where it is missing.
func (b *bench) supervised(script string) (string, error) {
	if _, err := exec.LookPath("s6-svscan"); err != nil {
		return "", nil
	}
	service := filepath.Join(b.dir, "s6", "service")
	if err := os.MkdirAll(service, 0o755); err != nil {
		return "", err
	}
	return filepath.Dir(service), os.WriteFile(filepath.Join(service, "run"),
		[]byte("#!/bin/sh\nexec sh "+script+"\n"), 0o755)
}

// stop starts a command as process 1 of a PID namespace, sends SIGTERM once it is ready, and
// reports whether it finished.
func (b *bench) stop(args []string) (bool, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer read.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Stdout = b.env(), write
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(),
			HostID: os.Getuid(), Size: 1}}
	}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return false, err
	}
	stuck := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	var output bytes.Buffer
	buffer := make([]byte, 4096)
	asked := false
	for {
		n, err := read.Read(buffer)
		output.Write(buffer[:n])
		if !asked && strings.Contains(output.String(), "READY") {
			asked = true
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	return strings.Contains(output.String(), "DRAINED"), nil
}

// checkLarge shows the cost of a check of 4 environments of 500 files with 50,000 keys in all.
func (b *bench) checkLarge() error {
	source := filepath.Join(b.dir, "check")
	for _, env := range []string{"test", "sandbox", "production", "stable"} {
		dir := filepath.Join(source, "envs", env, "opt")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for i := range 500 {
			var text strings.Builder
			for k := range 25 {
				fmt.Fprintf(&text, "service%d.key%d=value %d of %s\n", i, k, k, env)
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.properties", i)),
				[]byte(text.String()), 0o644); err != nil {
				return err
			}
		}
	}
	var samples []sample
	for range 5 {
		s, err := once(b.env(), b.check, "check", "--source", source)
		if err != nil {
			return err
		}
		samples = append(samples, s)
	}
	peak, err := peakOf(b.env(), b.check, "check", "--source", source)
	if err != nil {
		return err
	}
	m := median(samples)
	fmt.Printf("check of 4 environments, 2,000 files, 50,000 keys: %s, processor %s, peak of "+
		"memory %.0f MB\n", ms(m.wall), ms(m.cpu), peak)
	return nil
}
