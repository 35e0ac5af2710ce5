// A service for the templates go and go-static.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	http.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "/app/env.txt")
	})
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("WORKING")
		<-time.After(time.Second)
		fmt.Fprint(w, "whole")
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT")}
	ended := make(chan error)
	go func() {
		<-stopped.Done()
		ended <- server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		panic(err)
	}
	if err := <-ended; err != nil {
		panic(err)
	}
}
