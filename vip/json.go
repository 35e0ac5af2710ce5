package vip

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration in JSON: text such as "90s" or "1h0m0s", the same out as in;
// "forever" is Forever.
type Duration time.Duration

// UnmarshalText reads a duration above 0, or "forever".
func (d *Duration) UnmarshalText(text []byte) error {
	if string(text) == "forever" {
		*d = Duration(Forever)
		return nil
	}
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("duration %.64q: want one such as 90s or 1h30m above 0, or forever", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) {
	if time.Duration(d) == Forever {
		return []byte("forever"), nil
	}
	return []byte(time.Duration(d).String()), nil
}

// leaseJSON is a Lease without methods.
type leaseJSON Lease

// MarshalJSON writes TTL as a Duration; a zero TTL, of an address without a lease, is left out.
func (l Lease) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		leaseJSON
		TTL Duration `json:"ttl,omitzero"`
	}{leaseJSON(l), Duration(l.TTL)})
}

// UnmarshalJSON is the inverse of MarshalJSON. It also reads a TTL in nanoseconds, as it was
// written before.
func (l *Lease) UnmarshalJSON(data []byte) error {
	in := struct {
		*leaseJSON
		TTL json.RawMessage `json:"ttl"`
	}{leaseJSON: (*leaseJSON)(l)}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	if len(in.TTL) == 0 {
		return nil
	}
	if in.TTL[0] != '"' {
		return json.Unmarshal(in.TTL, &l.TTL)
	}
	return json.Unmarshal(in.TTL, (*Duration)(&l.TTL))
}
