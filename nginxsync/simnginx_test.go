package nginxsync

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
)

// simNginx is an Nginx that fails on demand, and starts again with the state file of an agent.
type simNginx struct {
	rand   *rand.Rand
	faulty bool
	full   bool   // its memory has no room for rows
	kill   bool   // the agent may be killed
	file   string // the state file that it starts from; empty for none
	routes Routes
	epoch  uint64
	writer string
	lags   [2]lag // of the workers
}

// lag is a worker that answers with the generation of some time ago.
type lag struct {
	at    Generation
	steps int
}

var errSim = errors.New("simulated")

// errKilled is the value of the panic that ends an agent.
var errKilled = errors.New("killed")

func (n *simNginx) fails(p float64) bool { return n.faulty && n.rand.Float64() < p }

// step is a place where the agent may be killed.
func (n *simNginx) step() {
	if n.kill && n.fails(0.03) {
		panic(errKilled)
	}
}

func (n *simNginx) Apply(_ context.Context, d Delta) error {
	n.step()
	if n.fails(0.1) {
		return errSim
	}
	if d.Epoch < n.epoch || d.Epoch == n.epoch && d.Writer != n.writer {
		return ErrFenced
	}
	if n.full && len(d.Rows) > 0 {
		return &TooLargeError{Need: 2, Have: 1}
	}
	next, err := n.routes.Apply(d)
	if err != nil {
		return err
	}
	for i := range n.lags {
		if n.lags[i].steps == 0 && n.fails(0.3) {
			n.lags[i] = lag{n.routes.Generation, n.rand.IntN(8)}
		}
	}
	n.routes, n.epoch, n.writer = next, d.Epoch, d.Writer
	n.step()
	if n.fails(0.1) {
		return errSim // the answer is lost
	}
	return nil
}

func (n *simNginx) State(context.Context) (DriverState, error) {
	n.step()
	if n.fails(0.1) {
		return DriverState{}, errSim
	}
	s := DriverState{Applied: n.routes.Generation, Epoch: n.epoch, Writer: n.writer}
	for i := range n.lags {
		w := Worker{Slot: i, PID: i + 1, Applied: n.routes.Generation}
		if n.faulty && n.lags[i].steps > 0 {
			n.lags[i].steps--
			w.Applied = n.lags[i].at
		}
		s.Workers = append(s.Workers, w)
	}
	return s, nil
}

func (n *simNginx) Routes(context.Context) (Routes, error) {
	n.step()
	if n.fails(0.1) {
		return Routes{}, errSim
	}
	return n.routes, nil
}

// restart loses the term, and all routes that the state file does not have.
func (n *simNginx) restart() {
	n.epoch, n.writer, n.routes, n.lags = 0, "", Routes{}, [2]lag{}
	if n.file != "" {
		n.routes, _, _ = readState(n.file)
	}
}

// damage spoils the state file: cut, changed, or gone.
func (n *simNginx) damage() {
	text, err := os.ReadFile(n.file)
	if err != nil || len(text) == 0 {
		return
	}
	switch n.rand.IntN(4) {
	case 0:
		_ = os.Remove(n.file)
		return
	case 1:
		text = text[:n.rand.IntN(len(text))]
	case 2:
		text[n.rand.IntN(len(text))] ^= 1
	default:
		text = nil
	}
	_ = os.WriteFile(n.file, text, 0o600)
}
