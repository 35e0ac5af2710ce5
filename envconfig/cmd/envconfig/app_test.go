package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
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
}
