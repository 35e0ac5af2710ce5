package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
)

// sign writes the signature of a tree into it. The key is a PEM file as "openssl genpkey -algorithm
// ed25519" makes it.
func sign(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync sign", flag.ContinueOnError)
	flags.SetOutput(stderr)
	keyFile := flags.String("key", "", "`file` of the private ed25519 key in PEM: openssl "+
		"genpkey -algorithm ed25519")
	git := flags.Bool("git", false, "sign with the modes that git stores: 0755 for what the "+
		"owner may execute, else 0644")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *keyFile == "" || flags.NArg() != 1 {
		fmt.Fprintln(stderr, "nginxsync sign: -key and one directory are required")
		return errUsage
	}
	key, err := readKey(*keyFile)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(flags.Arg(0))
	if err != nil {
		return err
	}
	defer root.Close()
	b, err := bundle.Read(root.FS(), bundle.Limits{})
	if err == nil && *git {
		b, err = gitModes(b)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", flags.Arg(0), err)
	}
	signature, err := bundle.Sign(b, key)
	if err != nil {
		return err
	}
	name := filepath.Join(flags.Arg(0), bundle.SignatureFile)
	if err := atomicfile.Write(name, []byte(signature), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: signature of %d files\n", name, len(b.Files))
	return nil
}

func gitModes(b *bundle.Bundle) (*bundle.Bundle, error) {
	files := make(map[string]bundle.File, len(b.Files))
	for name, f := range b.Files {
		if f.Mode&0o100 != 0 {
			f.Mode = 0o755
		} else {
			f.Mode = 0o644
		}
		files[name] = f
	}
	return bundle.New(files, bundle.Limits{})
}

func readKey(name string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s: want a PEM block PRIVATE KEY", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if ed, ok := key.(ed25519.PrivateKey); err == nil && ok {
		return ed, nil
	}
	return nil, fmt.Errorf("%s: want an ed25519 key", name)
}
