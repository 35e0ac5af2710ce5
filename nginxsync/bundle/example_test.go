package bundle_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
)

func ExampleVerifiedSource() {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	tree := fstest.MapFS{"nginx.conf": {Data: []byte("events {}"), Mode: 0o644}}
	b, err := bundle.Read(tree, bundle.Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}
	signature, err := bundle.Sign(b, private)
	if err != nil {
		fmt.Println(err)
		return
	}
	tree[bundle.SignatureFile] = &fstest.MapFile{Data: []byte(signature), Mode: 0o644}
	source := bundle.VerifiedSource{
		Source: &bundle.DirSource{FS: tree, Settle: 1},
		Keys:   []ed25519.PublicKey{public},
	}
	b, err = source.Fetch(context.Background(), "")
	fmt.Println(len(b.Files), "files, error", err)
	// Output:
	// 2 files, error <nil>
}
