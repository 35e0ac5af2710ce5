package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// apps are services of the tests' own: the test binary is one of them when ENVCONFIG_TEST_APP names it.
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
	// stubborn does not end on SIGTERM.
	"stubborn": func([]string) {
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("READY")
		select {}
	},
	// signals prints what it gets, and ends on SIGTERM.
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
	// exit ends with the code that it is given.
	"exit": func(args []string) {
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	},
	// die ends by the signal that it is given.
	"die": func(args []string) {
		n, _ := strconv.Atoi(args[0])
		signal.Reset()
		_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
		select {}
	},
	// background starts itself as the service that the arguments name, in a session of its own, and goes.
	"background": func(args []string) {
		cmd := exec.Command(os.Args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "ENVCONFIG_TEST_APP="+args[0])
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
		}
	},
	// status prints how signals and limits reach a service.
	"status": func([]string) {
		var limit syscall.Rlimit
		_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
		fmt.Println("pid", os.Getpid(), "deploy", os.Getenv("DEPLOY_ENV"), "secret", os.Getenv("SECRET_TOKEN"))
		fds, _ := os.ReadDir("/proc/self/fd")
		for _, fd := range fds {
			to, err := os.Readlink("/proc/self/fd/" + fd.Name())
			if n, _ := strconv.Atoi(fd.Name()); err == nil && n > 2 && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
				fmt.Println("LEAKED", n, to)
			}
		}
	},
}
