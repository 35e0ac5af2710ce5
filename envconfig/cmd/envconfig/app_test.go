//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// apps are services of the tests' own: the test binary is one of them when SLUICE_TEST_APP names
// it.
var apps = map[string]func(args []string){
	// drain works on for a while after SIGTERM, as a service with open requests does.
	"drain": func([]string) {
		c := make(chan os.Signal, 8)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("READY")
		<-c
		work := time.After(300 * time.Millisecond)
		for {
			select {
			case <-c:
				fmt.Println("ASKED TWICE")
			case <-work:
				fmt.Println("DRAINED")
				return
			}
		}
	},
	// pool is a service with a worker that is in the middle of a task. On SIGTERM it waits for it.
	"pool": func([]string) {
		asked, worker := make(chan os.Signal, 8), make(chan os.Signal, 8)
		if os.Getenv("WORKER") != "" {
			signal.Notify(worker, syscall.SIGTERM)
			fmt.Println("WORKING")
			select {
			case <-worker:
				fmt.Println("WORKER SIGNALLED")
			case <-closed(os.Stdin):
				// A signal to the group may be seen after the end of the task's input.
				select {
				case <-worker:
					fmt.Println("WORKER SIGNALLED")
				case <-time.After(time.Second):
					fmt.Println("TASK DONE")
				}
			}
			return
		}
		signal.Notify(asked, syscall.SIGTERM)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "WORKER=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		task, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		<-asked
		task.Close()
		_ = cmd.Wait()
	},
	// stubborn does not end on any signal.
	"stubborn": func([]string) {
		signal.Ignore()
		fmt.Println("READY")
		select {}
	},
	// signals prints the signals that it gets, and ends on SIGTERM.
	"signals": func([]string) {
		c := make(chan os.Signal, 64)
		signal.Notify(c)
		fmt.Println("READY")
		for s := range c {
			if s == syscall.SIGURG {
				continue
			}
			fmt.Println("GOT", int(s.(syscall.Signal)))
			if s == syscall.SIGTERM {
				return
			}
		}
	},
	// blockcont becomes the command that the arguments name, with SIGCONT blocked, so that one that
	// comes stays pending.
	"blockcont": func(args []string) {
		runtime.LockOSThread()
		set := unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGCONT - 1)}}
		err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
		if err == nil {
			err = syscall.Exec(args[0], args, os.Environ())
		}
		fmt.Println(err)
	},
	// noprctl becomes the command that the arguments name, which is refused every prctl from then
	// on.
	"noprctl": func(args []string) { execWithout(args, unix.SYS_PRCTL) },
	// nowait does the same with wait4.
	"nowait": func(args []string) { execWithout(args, unix.SYS_WAIT4) },
	// su-exec becomes the command as another user, as su-exec does.
	"su-exec": func(args []string) {
		who, err := user.Lookup(args[0])
		if err != nil {
			fmt.Println(err)
			return
		}
		uid, _ := strconv.Atoi(who.Uid)
		gid, _ := strconv.Atoi(who.Gid)
		path, err := exec.LookPath(args[1])
		if err == nil {
			err = errors.Join(syscall.Setgroups([]int{gid}), syscall.Setgid(gid),
				syscall.Setuid(uid))
		}
		if err == nil {
			err = syscall.Exec(path, args[1:], os.Environ())
		}
		fmt.Println(err)
	},
	// background starts itself as the service that the arguments name, in a session of its own, and
	// goes.
	"background": func(args []string) {
		cmd := exec.Command(os.Args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "SLUICE_TEST_APP="+args[0])
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
		}
	},
}

// closed returns a channel that is ready when the file has come to its end.
func closed(f *os.File) <-chan error {
	c := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, f); c <- err }()
	return c
}

// execWithout becomes the command, which is refused one system call from then on.
func execWithout(args []string, call uint32) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	// filters belong to a thread, and the one that calls exec is the one that stays
	runtime.LockOSThread()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER,
			uintptr(unsafe.Pointer(&program)), 0, 0)
	}
	if err == nil && call == unix.SYS_PRCTL && unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0,
		0) == nil {
		err = errors.New("prctl still works")
	}
	if err == nil {
		err = syscall.Exec(args[0], args, slices.DeleteFunc(os.Environ(), func(kv string) bool {
			return strings.HasPrefix(kv, "SLUICE_TEST_APP=")
		}))
	}
	fmt.Println(err)
}
