package rollout

import (
	"context"
	"sync"

	"github.com/sluice-deploy/sluice/promote"
)

// MemRecords is a Records in memory: for tests, and the reference for other implementations.
type MemRecords struct {
	mu      sync.Mutex
	records map[promote.Target]Record
}

var _ Records = (*MemRecords)(nil)

// NewMemRecords returns a store without a record.
func NewMemRecords() *MemRecords { return &MemRecords{records: map[promote.Target]Record{}} }

// Get implements Records.
func (m *MemRecords) Get(ctx context.Context, target promote.Target) (Record, error) {
	if ctx.Err() != nil {
		return Record{}, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(target), nil
}

func (m *MemRecords) get(target promote.Target) Record {
	r := m.records[target].clone()
	r.Target = target
	return r
}

// Update implements Records.
func (m *MemRecords) Update(ctx context.Context, target promote.Target,
	change func(Record) (Record, error)) (Record, error) {
	if ctx.Err() != nil {
		return Record{}, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := change(m.get(target))
	if err != nil {
		return Record{}, err
	}
	m.records[target] = r.clone()
	return r, nil
}

// List implements Records.
func (m *MemRecords) List(ctx context.Context) ([]Record, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Record, 0, len(m.records))
	for _, r := range m.records {
		list = append(list, r.clone())
	}
	return list, nil
}
