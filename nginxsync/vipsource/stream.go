package vipsource

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/vip"
)

const (
	page      = 1000
	mostBytes = 64 << 20 // of one answer, and of one event
)

// get sends one request. The error of an answer other than 200 has a part of its body.
func (r *Remote) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	at := r.base + path
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	if r.cfg.Token != nil {
		token, err := r.cfg.Token()
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.cfg.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var problem struct {
		Detail string `json:"detail"`
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status says enough
	_ = json.Unmarshal(text, &problem)
	return nil, fmt.Errorf("GET %s: %s: %.256s", r.base+path, resp.Status, problem.Detail)
}

// decode sends a request whose answer is one JSON value.
func (r *Remote) decode(ctx context.Context, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.Silence,
		fmt.Errorf("no answer within %s", r.cfg.Silence))
	defer cancel()
	body, err := r.get(ctx, path, query)
	if err != nil {
		return because(ctx, err)
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, mostBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("GET %s: %w", r.base+path, because(ctx, err))
	case len(text) > mostBytes:
		return fmt.Errorf("GET %s: more than %d bytes: %w", r.base+path, mostBytes,
			nginxsync.ErrTooLarge)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("GET %s: %w", r.base+path, err)
	}
	return nil
}

// because is the cause of ctx where it has ended, else err.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// list reads all leases and pools, and puts them in the place of those known. The leases are as
// they were at different moments: the events of the stream, which began before, lead to the state
// of one moment, that of the first event after the list.
func (r *Remote) list(ctx context.Context, events *stream) (err error) {
	began := r.cfg.Now()
	defer func() { r.cfg.Observe("list", r.cfg.Now().Sub(began), err) }()
	query := url.Values{"limit": {strconv.Itoa(page)}}
	for _, state := range listed {
		query.Add("state", state.String())
	}
	var all []vip.Lease
	for {
		var got struct {
			Leases []json.RawMessage `json:"leases"`
			Next   string            `json:"next"`
		}
		if err := r.decode(ctx, "/leases", query, &got); err != nil {
			return err
		}
		for _, text := range got.Leases {
			l, err := readLease(text)
			if err != nil {
				r.setAside(fmt.Errorf("GET %s/leases: %w", r.base, err))
				continue
			}
			all = append(all, l)
		}
		if got.Next == "" {
			break
		}
		query.Set("after", got.Next)
	}
	pools, err := r.pools(ctx)
	if err != nil {
		return err
	}
	last, err := r.revision(ctx)
	if err != nil {
		return err
	}
	seen, byAddr := events.began, map[netip.Addr]int{}
	for i, l := range all {
		byAddr[l.Addr] = i
	}
	for seen < last {
		e, err := events.next()
		if err != nil {
			return err
		}
		switch e.kind {
		case "reset":
			return errReset
		case "pools":
			if pools, err = r.pools(ctx); err != nil {
				return err
			}
			continue
		}
		l, err := e.lease()
		i, listed := byAddr[l.Addr]
		switch {
		case err != nil:
			r.setAside(err)
		case listed:
			all[i] = l
		default:
			byAddr[l.Addr] = len(all)
			all = append(all, l)
		}
		seen = e.id
	}
	r.leases.mu.Lock()
	r.leases.load(all)
	r.leases.seen, r.leases.pools = seen, pools
	r.leases.publish()
	r.leases.mu.Unlock()
	return nil
}

// revision is that of the last event now.
func (r *Remote) revision(ctx context.Context) (uint64, error) {
	s, err := r.stream(ctx, 0, false)
	if err != nil {
		return 0, err
	}
	s.close(nil)
	return s.began, nil
}

// pools reads the addresses that may be leased.
func (r *Remote) pools(ctx context.Context) ([]nginxsync.Range, error) {
	if r.cfg.KeepBaseline {
		return nil, nil
	}
	var got struct {
		Addresses map[string][]string `json:"addresses"`
	}
	if err := r.decode(ctx, "/pools", nil, &got); err != nil {
		return nil, err
	}
	if got.Addresses == nil {
		return nil, fmt.Errorf("GET %s/pools: want a member %q", r.base, "addresses")
	}
	var out []nginxsync.Range
	for _, ranges := range got.Addresses {
		for _, text := range ranges {
			one, err := vip.ParseRange(text)
			if err != nil {
				return nil, fmt.Errorf("GET %s/pools: %w", r.base, err)
			}
			out = append(out, nginxsync.Range(one))
		}
	}
	return out, nil
}

// readPools takes the pools as they are now.
func (r *Remote) readPools(ctx context.Context) error {
	pools, err := r.pools(ctx)
	if err != nil {
		return err
	}
	r.leases.mu.Lock()
	before := nginxsync.Snapshot{Pools: r.leases.pools}
	changed := !before.Equal(nginxsync.Snapshot{Pools: pools})
	if changed {
		r.leases.pools = pools
		r.leases.publish()
	}
	r.leases.mu.Unlock()
	if changed {
		r.mu.Lock()
		r.tell()
		r.mu.Unlock()
	}
	return nil
}

// stream is an open stream of events.
type stream struct {
	began uint64 // the revision that it began after
	body  io.ReadCloser
	lines *bufio.Reader
	ctx   context.Context
	close context.CancelCauseFunc
	quiet *time.Timer
	limit time.Duration
}

// event is one server-sent event.
type event struct {
	kind string
	id   uint64
	data string
}

func (e event) lease() (vip.Lease, error) {
	var in struct {
		Lease json.RawMessage `json:"lease"`
	}
	var lease vip.Lease
	err := json.Unmarshal([]byte(e.data), &in)
	if err == nil {
		lease, err = readLease(in.Lease)
	}
	if err != nil {
		return vip.Lease{}, fmt.Errorf("event %d %.32q: %w", e.id, e.kind, err)
	}
	return lease, nil
}

func readLease(text []byte) (lease vip.Lease, err error) {
	if err := json.Unmarshal(text, &lease); err != nil {
		return vip.Lease{}, err
	}
	if !lease.Addr.IsValid() {
		return vip.Lease{}, fmt.Errorf("lease %.64q: want an address", lease.ID)
	}
	return lease, nil
}

// stream opens the events after a revision, or from now on, and reads where they begin. errReset
// says that those after the revision are not kept.
func (r *Remote) stream(ctx context.Context, after uint64, resume bool) (*stream, error) {
	s := &stream{limit: r.cfg.Silence}
	s.ctx, s.close = context.WithCancelCause(ctx)
	silent := fmt.Errorf("GET %s/watch: no event and no sign of life for %s", r.base, s.limit)
	s.quiet = time.AfterFunc(s.limit, func() { s.close(silent) })
	query := url.Values{}
	if resume {
		query.Set("after", strconv.FormatUint(after, 10))
	}
	var err error
	if s.body, err = r.get(s.ctx, "/watch", query); err != nil {
		s.quiet.Stop()
		err = because(s.ctx, err)
		s.close(nil)
		return nil, err
	}
	context.AfterFunc(s.ctx, func() { s.quiet.Stop(); s.body.Close() })
	s.lines = bufio.NewReaderSize(s.body, 64<<10)
	hello, err := s.next()
	if err == nil && hello.kind != "hello" {
		err = fmt.Errorf("GET %s/watch: event %.32q: want %q first", r.base, hello.kind, "hello")
	}
	s.quiet.Stop() // until the next event is read
	if err != nil {
		s.close(nil)
		return nil, err
	}
	s.began = hello.id
	return s, nil
}

// next reads one event. Comments are signs of life.
func (s *stream) next() (e event, err error) {
	s.quiet.Reset(s.limit)
	for {
		line, err := s.line()
		if err != nil {
			return e, err
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "event":
			e.kind = value
		case "id":
			if e.id, err = strconv.ParseUint(value, 10, 64); err != nil {
				return e, fmt.Errorf("event id %.64q: want a number", value)
			}
		case "data":
			e.data = value
		case "":
			if line == "" && e.kind != "" {
				return e, nil
			}
		}
	}
}

func (s *stream) line() (string, error) {
	var long []byte
	for {
		part, err := s.lines.ReadSlice('\n')
		s.quiet.Reset(s.limit)
		switch {
		case err == nil && long == nil:
			return strings.TrimSuffix(string(part), "\n"), nil
		case err == nil:
			return strings.TrimSuffix(string(append(long, part...)), "\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", fmt.Errorf("events: %w", because(s.ctx, err))
		case len(long)+len(part) > mostBytes:
			return "", fmt.Errorf("events: a line of more than %d bytes: %w", mostBytes,
				nginxsync.ErrTooLarge)
		}
		long = append(long, part...)
	}
}
