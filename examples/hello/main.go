// Command hello is the sample service of the trial: it answers every request with its own identity.
// It reads one properties file, /app/conf/app.properties by default, which envconfig has put there
// for the environment that the container runs in.
//
// Variables: PORT (required) is the port to listen on at 127.0.0.1; DEPLOY_ENV, CLUSTER_NAME and
// IMAGE_DIGEST are shown in the answer; HELLO_CONFIG names another properties file. The version is
// linked in: -ldflags "-X main.version=v1".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

var version = "dev"

// Answer is the JSON body of every response.
type Answer struct {
	Cluster     string `json:"cluster"`
	Version     string `json:"version"`
	Environment string `json:"environment"`
	Digest      string `json:"digest"`
	Greeting    string `json:"greeting"` // the value of "greeting" in the active properties file
	VIP         string `json:"vip"`      // the address that the request came to, as Nginx tells it
	Host        string `json:"host"`
	URI         string `json:"uri"` // as the service received it, after every rewrite
	Served      string `json:"served"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	path := getenv("HELLO_CONFIG")
	if path == "" {
		path = "/app/conf/app.properties"
	}
	config, err := readProperties(path)
	if err != nil {
		return err
	}
	if getenv("PORT") == "" {
		return errors.New("PORT is not set: give the port to listen on")
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", getenv("PORT")))
	if err != nil {
		return err
	}
	identity := Answer{
		Cluster: getenv("CLUSTER_NAME"), Version: version, Environment: getenv("DEPLOY_ENV"),
		Digest: getenv("IMAGE_DIGEST"), Greeting: config["greeting"],
	}
	server := &http.Server{Handler: handler(identity), ReadHeaderTimeout: 10 * time.Second}
	// one result; run may have returned on a Serve error before it is sent
	drained := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		drained <- server.Shutdown(grace)
	}()
	fmt.Printf("hello: %s %s in %q listens on %s\n", identity.Cluster, version,
		identity.Environment, listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}

func handler(identity Answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := identity
		answer.VIP, answer.Host, answer.URI = r.Header.Get("X-Env-VIP"), r.Host, r.URL.RequestURI()
		answer.Served = time.Now().UTC().Format(time.RFC3339Nano)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "max-age=60")
		_ = json.NewEncoder(w).Encode(answer) // the client has gone: the error has no receiver
	})
}
