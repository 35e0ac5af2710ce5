package platform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	var events Events
	events.Bump()
	seen, err := events.Wait(t.Context(), 0)
	require.NoError(t, err)

	woken := make(chan uint64, 8) // one for each waiter
	for range cap(woken) {
		go func() {
			next, err := events.Wait(t.Context(), seen)
			if err != nil {
				next = 0
			}
			woken <- next
		}()
	}
	events.Bump()
	for range cap(woken) {
		require.Greater(t, <-woken, seen)
	}

	gone := errors.New("the page was closed")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	next, err := events.Wait(ctx, seen)
	require.NoError(t, err, "what has changed already is said")
	again, err := events.Wait(ctx, next)
	require.ErrorIs(t, err, gone)
	require.Equal(t, next, again)
}

func TestLocks(t *testing.T) {
	t.Parallel()
	var l locks
	counts := map[string]int{}
	var mu sync.Mutex // of the map, not of its values
	var wg sync.WaitGroup
	for n := range 200 {
		name := fmt.Sprint("name ", n%3)
		wg.Go(func() {
			unlock, err := l.lock(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			mu.Lock()
			before := counts[name]
			mu.Unlock()
			mu.Lock()
			counts[name] = before + 1
			mu.Unlock()
		})
	}
	wg.Wait()
	require.Equal(t, map[string]int{"name 0": 67, "name 1": 67, "name 2": 66}, counts)

	unlock, err := l.lock(t.Context(), "task a")
	require.NoError(t, err)
	other, err := l.lock(t.Context(), "task b")
	require.NoError(t, err, "another name is free")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = l.lock(ctx, "task a")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "task a")
	other()
	unlock()
	require.Empty(t, l.held, "names that nobody holds cost nothing")
}

func TestRecords(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.db")
	db, err := bbolt.Open(file, 0o600, nil)
	require.NoError(t, err)
	type record struct{ Name string }
	r, err := openRecords[record](db, "things")
	require.NoError(t, err)

	_, found, err := r.get("one")
	require.NoError(t, err)
	require.False(t, found)
	for _, key := range []string{"two", "one"} {
		got, err := r.update(key, func(old record) (record, error) {
			return record{old.Name + key}, nil
		})
		require.NoError(t, err)
		require.Equal(t, record{key}, got)
	}
	_, err = r.update("one", func(record) (record, error) {
		return record{"lost"}, os.ErrPermission
	})
	require.ErrorIs(t, err, os.ErrPermission)
	first, err := r.next()
	require.NoError(t, err)
	require.NoError(t, db.Close())

	db, err = bbolt.Open(file, 0o600, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	r, err = openRecords[record](db, "things")
	require.NoError(t, err)
	list, err := r.list()
	require.NoError(t, err)
	require.Equal(t, []record{{"one"}, {"two"}}, list, "in the order of their keys; an update "+
		"that did not succeed changes nothing")
	second, err := r.next()
	require.NoError(t, err)
	require.Greater(t, second, first)

	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(r.bucket).Put([]byte("three"), []byte("{"))
	}))
	_, _, err = r.get("three")
	require.ErrorContains(t, err, "record things/three")
	var syntax *json.SyntaxError
	require.ErrorAs(t, err, &syntax)
	_, err = r.list()
	require.ErrorContains(t, err, "record things/three")
}

func TestOverlayFS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "envs/test"), 0o755))
	for name, content := range map[string]string{"app": "binary", "envs/test/a.conf": "a",
		"manifest.json": "of the upload"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	require.NoError(t, os.Symlink("a.conf", filepath.Join(dir, "envs/test/b.conf")))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	o := overlayFS{root.FS(), fstest.MapFS{"envconfig": {Data: []byte("tool"), Mode: 0o755},
		"manifest.json": {Data: []byte("ours"), Mode: 0o644}}}
	require.NoError(t, fstest.TestFS(o, "app", "envconfig", "manifest.json", "envs/test/a.conf",
		"envs/test/b.conf"))
	data, err := fs.ReadFile(o, "manifest.json")
	require.NoError(t, err)
	require.Equal(t, "ours", string(data))
}
