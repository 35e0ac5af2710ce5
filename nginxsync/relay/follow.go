package relay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// The limits of one line, and of all lines until an end.
const (
	mostLine     = 16 << 20
	mostTransfer = 1 << 30
)

// follow reads from a relay until something fails. came reports whether it came as far as a
// snapshot.
func (s *Source) follow(ctx context.Context, at string) (came bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fmt.Errorf("no sign of life for %s", s.cfg.Silence)
	quiet := time.AfterFunc(s.cfg.Silence, func() { cancel(silent) })
	defer quiet.Stop()
	body, err := s.get(ctx, at)
	if err != nil {
		return false, because(ctx, err)
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), mostLine)
	t := transfer{source: s, relay: at}
	for lines.Scan() {
		quiet.Reset(s.cfg.Silence)
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := t.take(lines.Text()); err != nil {
			return t.came, err
		}
	}
	if err = lines.Err(); err == nil {
		err = errors.New("the relay has ended the stream")
	}
	return t.came, because(ctx, err)
}

// because is the cause of ctx where it has ended, else err.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// get asks a relay. The error of an answer other than 200 has a part of its body.
func (s *Source) get(ctx context.Context, at string) (io.ReadCloser, error) {
	query := url.Values{}
	if s.stream != "" {
		query.Set("stream", s.stream)
		query.Set("after", strconv.FormatUint(s.at, 10))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	token, err := s.cfg.Token()
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.cfg.Client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // the address is named already
		}
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
	return nil, fmt.Errorf("%s: %.256s", resp.Status, problem.Detail)
}

// transfer takes the lines of one connection.
type transfer struct {
	source *Source
	relay  string
	came   bool
	stream string
	next   *view // that a transfer of everything makes; nil for one of changes
	size   int   // of the lines since the last end
	silent bool  // the relay does not hear its source
}

func (t *transfer) take(text string) error {
	in, err := parse(text)
	if err != nil {
		return fmt.Errorf("line %.64q: %w", text, err)
	}
	if t.size += len(text); t.size > mostTransfer {
		return fmt.Errorf("more than %d bytes before an end: %w", mostTransfer,
			nginxsync.ErrTooLarge)
	}
	s := t.source
	switch {
	case in.Silent != nil:
		if t.silent = *in.Silent != ""; t.silent {
			s.lost(t.relay, fmt.Errorf("does not hear its source: %s", *in.Silent))
		} else if t.came {
			s.heard(t.relay, nil)
		}
	case in.Hello != nil && in.Hello.After == 0:
		t.stream, t.next = in.Hello.Stream, newView()
	case in.Hello != nil && in.Hello.Stream == s.stream && in.Hello.After == s.at:
		t.stream, t.next = in.Hello.Stream, nil
		t.heard(nil)
	case in.Hello != nil:
		return fmt.Errorf("changes after revision %d, want after %d", in.Hello.After, s.at)
	case t.stream == "":
		return fmt.Errorf("line %.64q: want hello first", text)
	case in.End != nil:
		return t.end(*in.End)
	case t.next != nil:
		t.next.apply(text, in)
	default:
		s.view.apply(text, in)
	}
	return nil
}

// end makes the lines since the last end take effect.
func (t *transfer) end(e end) error {
	s := t.source
	if t.next != nil {
		s.view, s.stream, s.at, t.next = t.next, t.stream, 0, nil
	}
	snapshot, err := s.view.snapshot(e.Sum)
	if err == nil && e.Revision <= s.at {
		err = fmt.Errorf("comes after revision %d", s.at)
	}
	if err != nil {
		s.stream, s.at = "", 0 // everything with the next try
		return fmt.Errorf("revision %d: %w", e.Revision, err)
	}
	s.at, t.size = e.Revision, 0
	t.heard(&snapshot)
	return nil
}

// heard passes on that the relay is followed, and its snapshot where that is another one.
func (t *transfer) heard(next *nginxsync.Snapshot) {
	if t.came = true; t.silent {
		t.source.keep(next)
		return
	}
	t.source.heard(t.relay, next)
}
