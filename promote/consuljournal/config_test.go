package consuljournal_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/consuljournal"
)

// badValues gives every field of a T but the free ones a bad value, and wants an error of create
// that names the field.
func badValues[T any](t *testing.T, good T, create func(T) error, bad map[string][]func(*T)) {
	t.Helper()
	require.NoError(t, create(good))
	typ := reflect.TypeFor[T]()
	free := []string{"Logger", "Now", "Observe"} // every value is good
	for field := range typ.Fields() {
		if bad[field.Name] == nil {
			require.Contains(t, free, field.Name)
			continue
		}
		for _, harm := range bad[field.Name] {
			cfg := good
			harm(&cfg)
			err := create(cfg)
			require.ErrorIs(t, err, promote.ErrInvalid)
			require.ErrorContains(t, err, "consuljournal: "+typ.Name()+"."+field.Name+": ")
		}
	}
	all := good
	for _, harms := range bad {
		harms[0](&all)
	}
	err := create(all)
	for name := range bad {
		require.ErrorContains(t, err, typ.Name()+"."+name+": ", "every problem is named at once")
	}
}

func client(t *testing.T) *api.Client {
	t.Helper()
	c, err := api.NewClient(api.DefaultConfig())
	require.NoError(t, err)
	return c
}

func TestConfig(t *testing.T) {
	t.Parallel()
	type cfg = consuljournal.Config
	badValues(t, cfg{Client: client(t)}, func(c cfg) error {
		_, err := consuljournal.New(c)
		return err
	}, map[string][]func(*cfg){
		"Client": {func(c *cfg) { c.Client = nil }},
		"Prefix": {func(c *cfg) { c.Prefix = "journal" }, func(c *cfg) { c.Prefix = "/journal/" },
			func(c *cfg) { c.Prefix = "/" }},
		"Patience": {func(c *cfg) { c.Patience = -1 }},
	})
}

func TestOwnersConfig(t *testing.T) {
	t.Parallel()
	type cfg = consuljournal.OwnersConfig
	badValues(t, cfg{Client: client(t)}, func(c cfg) error {
		_, err := consuljournal.NewOwners(c)
		return err
	}, map[string][]func(*cfg){
		"Client": {func(c *cfg) { c.Client = nil }},
		"Prefix": {func(c *cfg) { c.Prefix = "journal" }, func(c *cfg) { c.Prefix = "/journal/" }},
		"TTL": {func(c *cfg) { c.TTL = -1 }, func(c *cfg) { c.TTL = 10*time.Second - 1 },
			func(c *cfg) { c.TTL = 24*time.Hour + 1 }},
		"Patience": {func(c *cfg) { c.Patience = -1 }},
	})
}
