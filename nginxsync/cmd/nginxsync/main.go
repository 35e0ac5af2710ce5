// Command nginxsync carries a production Nginx configuration over to a test Nginx.
//
//	nginxsync transform -in DIR -out DIR [-rules FILE] [flags]   writes the tree of a test Nginx, prints a summary and a diff
//	nginxsync explain -conf DIR [-H HEADER]... URL               prints the route of a request, with file and line of each step
//	nginxsync diff [-json] OLD NEW                               lists the hosts and locations that go elsewhere in the new tree
//	nginxsync roundtrip FILE...                                  proves that files come out of the reader byte for byte
//	nginxsync sign -key FILE DIR                                 signs a production tree for sources that ask for it
//	nginxsync agent [-config FILE] [-check]         keeps the Nginx of this host in step with its sources
//	nginxsync agent drain [-wait 30s]               takes the host out of the load balancer
//	nginxsync agent undrain                         puts it back
//	nginxsync status [-json]                        prints the agent's state; 1 when it is unhealthy
//	nginxsync held                                  lists the changes that the agent holds
//	nginxsync release ID                            lets one of them take effect
//	nginxsync explain -vip VIP URL                  asks the agent which version answers on a VIP
//
// Exit codes: 0 done, 1 something in the input is wrong, 2 the command line is wrong. diff has two
// more: 3 for trees that differ, 4 where none of the differences is certain.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `usage:
  nginxsync transform -in DIR -out DIR [-rules FILE] [flags]
  nginxsync explain -conf DIR [-H 'Name: value']... URL
  nginxsync diff [-json] [-limit N] OLD NEW
  nginxsync roundtrip FILE...
  nginxsync sign -key FILE DIR
  nginxsync agent [-config FILE] [-check]
  nginxsync agent drain [-wait 30s]
  nginxsync agent undrain
  nginxsync status [-json]
  nginxsync held
  nginxsync release ID
  nginxsync explain -vip VIP URL

nginxsync COMMAND -h lists the flags of a command.
`

var commands = map[string]func(ctx context.Context, args []string, stdout, stderr io.Writer) error{
	"agent":     agent,
	"diff":      diff,
	"explain":   explain,
	"held":      held,
	"release":   release,
	"transform": transformTree,
	"roundtrip": roundtrip,
	"sign":      sign,
	"status":    status,
}

// errUsage is a command line that cannot be followed; the problem was printed already.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(stderr, usage)
		return 2
	}
	err := commands[args[0]](ctx, args[1:], stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	case errors.Is(err, errDiffers):
		return 3
	case errors.Is(err, errUndecided):
		return 4
	}
	for _, e := range flatten(err) {
		fmt.Fprintf(stderr, "nginxsync: %v\n", e)
	}
	return 1
}

func parse(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return errUsage
	}
	return err
}
