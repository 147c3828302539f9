package status

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// The words that stand in the JSON in place of a ping's or a peer's state.
const (
	pingTimeout = "timeout"
	nodeDown    = "node down"
	peerUnknown = "unknown"
)

// MarshalJSON writes empty lists as [], never as null.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	r.ReadyMembers = list(r.ReadyMembers)
	r.OnlineNodes = list(r.OnlineNodes)
	r.Ensembles = list(r.Ensembles)
	return json.Marshal(plain(r))
}

// MarshalJSON writes empty lists as [], never as null.
func (e Ensemble) MarshalJSON() ([]byte, error) {
	type plain Ensemble
	e.Views = list(e.Views)
	e.PeerInfo = list(e.PeerInfo)
	return json.Marshal(plain(e))
}

func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

type pingJSON struct {
	Leader  *Peer  `json:"leader"`
	Ready   bool   `json:"ready"`
	Replied []Peer `json:"replied"`
}

// MarshalJSON writes "timeout" or the answer.
func (p Ping) MarshalJSON() ([]byte, error) {
	if p.Timeout {
		return json.Marshal(pingTimeout)
	}
	return json.Marshal(pingJSON{p.Leader, p.Ready, list(p.Replied)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Ping) UnmarshalJSON(b []byte) error {
	if isString(b) {
		if _, err := word("ping", b, pingTimeout); err != nil {
			return err
		}
		*p = Ping{Timeout: true}
		return nil
	}
	var v pingJSON
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*p = Ping{Leader: v.Leader, Ready: v.Ready, Replied: v.Replied}
	return nil
}

type infoJSON struct {
	State   string `json:"state"`
	Trusted bool   `json:"trusted"`
	Epoch   string `json:"epoch"`
}

// MarshalJSON writes "node down", "unknown" or the state.
func (i Info) MarshalJSON() ([]byte, error) {
	switch {
	case i.Down:
		return json.Marshal(nodeDown)
	case i.State == "":
		return json.Marshal(peerUnknown)
	}
	return json.Marshal(infoJSON{i.State, i.Trusted, i.Epoch})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (i *Info) UnmarshalJSON(b []byte) error {
	if isString(b) {
		w, err := word("info", b, nodeDown, peerUnknown)
		*i = Info{Down: w == nodeDown}
		return err
	}
	var v infoJSON
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*i = Info{State: v.State, Trusted: v.Trusted, Epoch: v.Epoch}
	return nil
}

func isString(b []byte) bool { return bytes.HasPrefix(b, []byte{'"'}) }

// word reads a JSON string that must be one of the known words.
func word(field string, b []byte, known ...string) (string, error) {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return "", err
	}
	for _, k := range known {
		if s == k {
			return s, nil
		}
	}
	return "", fmt.Errorf("%s: %q is none of %q", field, s, known)
}
