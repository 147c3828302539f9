package status

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const header = ` Ensemble     Quorum        Nodes      Leader
-------------------------------------------------------------------------------
`

const peersHeader = ` Peer  Status     Trusted          Epoch         Node
-------------------------------------------------------------------------------
`

// States that Riak crashes on or cannot be in. We print what there is.
func TestOddStates(t *testing.T) {
	a, b := Peer{"root", "dev1@h"}, Peer{"root", "dev2@h"}
	view := [][]Peer{{a, b}}
	leads := PeerInfo{a, Info{State: "leading", Trusted: true, Epoch: "7"}}
	away := Peer{"root", "dev9@h"}
	tests := []struct {
		name            string
		e               Ensemble
		summary, detail string // lines below the last header
	}{
		{"leader in no view", Ensemble{ID: "root", Views: view, Ping: Ping{Leader: &away, Ready: true}, PeerInfo: []PeerInfo{leads}},
			"   root       0 / 2         1 / 2      dev9@h\n",
			"  1     leading     yes             7            dev1@h\n" +
				"  2       --        --              --           dev2@h\n"},
		{"leader in no view, on a node that has two peers in one",
			Ensemble{ID: "{kv,0,3}", Views: [][]Peer{{{"{kv,0,3,0}", "dev9@h"}, {"{kv,0,3,1}", "dev9@h"}}}, Ping: Ping{Leader: &away}},
			"    1         0 / 2         0 / 1      dev9@h\n",
			"  1       --        --              --           dev9@h\n" +
				"  2       --        --              --           dev9@h\n"},
		{"no view", Ensemble{ID: "root", Ping: Ping{Leader: &a, Ready: true, Replied: []Peer{a}}},
			"   root       0 / 0         0 / 0      dev1@h\n",
			""},
		{"one empty view", Ensemble{ID: "root", Views: [][]Peer{{}}},
			"   root       0 / 0         0 / 0      --\n",
			""},
		{"an empty view after a full one", Ensemble{ID: "root", Views: [][]Peer{{a}, nil}, Ping: Ping{Leader: &a, Replied: []Peer{a}}},
			"   root       1 / 1         1 / 1      dev1@h\n" +
				"              0 / 0         0 / 0  \n",
			"  1       --        --              --           dev1@h\n" + rule()},
		{"nothing known of any peer", Ensemble{ID: "root", Views: view, Ping: Ping{Timeout: true}},
			"   root       0 / 2         1 / 2      --\n",
			"  1       --        --              --           dev1@h\n" +
				"  2       --        --              --           dev2@h\n"},
		{"a peer twice in a view, and twice in the answer", Ensemble{ID: "root", Views: [][]Peer{{a, a}}, Ping: Ping{Leader: &a, Replied: []Peer{a, a}}},
			"   root       1 / 2         1 / 1      dev1@h\n",
			"  1       --        --              --           dev1@h\n"},
		{"a state, an epoch that are too long", Ensemble{ID: "root", Views: [][]Peer{{a}},
			PeerInfo: []PeerInfo{{a, Info{State: "a-state-too-long", Epoch: "abcdefghijklmnopqrstuvwxyz"}}}},
			"   root       0 / 1         1 / 1      --\n",
			"  1    tate-too-    no     defghijklmnopqrstuvw  dev1@h\n"},
		{"no names at all", Ensemble{Views: [][]Peer{{{}}}, Ping: Ping{Leader: &Peer{}, Replied: []Peer{{}}}},
			"    1         1 / 1         0 / 1      \n",
			"  1       --        --              --           \n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &Report{Enabled: true, Active: true, OnlineNodes: []string{"dev1@h"}, Ensembles: []Ensemble{tt.e}}
			if _, got, _ := strings.Cut(output(t, r, nil), header); got != tt.summary {
				t.Errorf("summary\n%s\nwant\n%s", got, tt.summary)
			}
			if _, got, _ := strings.Cut(output(t, r, []string{"1"}), peersHeader); got != tt.detail {
				t.Errorf("detail\n%s\nwant\n%s", got, tt.detail)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	r := &Report{Enabled: true, Ensembles: []Ensemble{{ID: "root"}, {ID: "{kv,0,3}"}}}
	tests := map[string]string{
		"root": "#1", "1": "#1", "+1": "#1", "001": "#1", "2": "#2", "+02": "#2",
		"3": "3", "007": "7", "+9": "9", "-0": "0", "00": "0", "-12": "-12",
		"123456789012345678901234567890": "123456789012345678901234567890",
		"":                               "", " 1": " 1", "1 ": "1 ", "0x1": "0x1", "1_0": "1_0", "++1": "++1", "+": "+", "1e0": "1e0",
		"Root": "Root", "'root'": "'root'", "root ": "root ", "é": "é",
	}
	for arg, want := range tests {
		line, _, _ := strings.Cut(output(t, r, []string{arg}), "\n")
		if strings.HasPrefix(want, "#") {
			want = strings.TrimSuffix(title("Ensemble "+want), "\n")
		} else {
			want = "No such ensemble: " + want
		}
		if line != want {
			t.Errorf("%q: got %q, want %q", arg, line, want)
		}
	}
}

func TestNotEnabledShowsNoEnsemble(t *testing.T) {
	r := &Report{Ensembles: []Ensemble{{ID: "root"}}}
	if got := output(t, r, nil); !strings.HasSuffix(got, "There are no active ensembles.\n") {
		t.Errorf("summary\n%s", got)
	}
	if got, want := output(t, r, []string{"root"}), "No such ensemble: 1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIDsAreOrderedAsErlangOrdersThem(t *testing.T) {
	want := []string{
		"{kv,0,3}", "{kv,9,3}", "{kv,10,3}", "{kv,10,20}", "{kv,100,3}",
		"{kv,22835963083295358096932575511191922182123945984,3}",
		"{kv,182687704666362864775460604089535377456991567872,3}",
		"{kv2,1,3}", "{kx,1,3}",
	}
	r := &Report{Enabled: true}
	var view []Peer
	for _, i := range []int{8, 3, 5, 0, 7, 6, 2, 4, 1} {
		r.Ensembles = append(r.Ensembles, Ensemble{ID: want[i]})
		view = append(view, Peer{ID: want[i]})
	}
	var ensembles, peers []string
	for _, e := range r.ordered() {
		ensembles = append(ensembles, e.ID)
	}
	e := Ensemble{Views: [][]Peer{view}}
	for _, p := range e.numbered() {
		peers = append(peers, p.ID)
	}
	if !slices.Equal(ensembles, want) || !slices.Equal(peers, want) {
		t.Errorf("ensembles %q\npeers %q", ensembles, peers)
	}
}

func TestOrderLeavesTheReportAlone(t *testing.T) {
	r := &Report{Enabled: true, Ensembles: []Ensemble{{ID: "z"}, {ID: "a"}, {ID: "root"}}}
	output(t, r, nil)
	output(t, r, []string{"1"})
	if r.Ensembles[0].ID != "z" || r.Ensembles[2].ID != "root" {
		t.Errorf("ensembles are now %+v", r.Ensembles)
	}
}

func TestCounts(t *testing.T) {
	tests := []struct {
		a, b int
		want string
	}{
		{0, 3, "  0 / 3  "}, {9, 10, "  9 / 10 "}, {12, 112, " 12 / 112"}, {999, 1000, "999 / ***"},
	}
	for _, tt := range tests {
		if got := ratio(tt.a, tt.b); got != tt.want {
			t.Errorf("ratio(%d, %d) = %q, want %q", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestCentre(t *testing.T) {
	tests := []struct {
		s    string
		n    int
		want string
	}{
		{"", 0, ""}, {"", 3, "..."}, {"a", 4, ".a.."}, {"ab", 4, ".ab."}, {"abcd", 4, "abcd"},
		{"abcde", 4, "abcd"}, {"abcdef", 4, "bcde"}, {"abcdefg", 4, "bcde"}, {"a", 0, ""},
	}
	for _, tt := range tests {
		if got := centre(tt.s, tt.n, "."); got != tt.want {
			t.Errorf("centre(%q, %d) = %q, want %q", tt.s, tt.n, got, tt.want)
		}
	}
}

func TestJSONOfTheZeroReportHasNoNull(t *testing.T) {
	r := Report{Ensembles: []Ensemble{{}}}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"enabled":false,"active":false,"ring_ready":false,"tree_validation":false,"synchronous_tree_updates":false,` +
		`"ready_members":[],"online_nodes":[],"ensembles":[` +
		`{"id":"","views":[],"ping":{"leader":null,"ready":false,"replied":[]},"peer_info":[]}]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestBadJSONIsAnError(t *testing.T) {
	for in, want := range map[string]string{
		`{"ensembles":[{"ping":"later"}]}`:                   `ping: "later" is none of ["timeout"]`,
		`{"ensembles":[{"ping":[]}]}`:                        `cannot unmarshal array`,
		`{"ensembles":[{"ping":"\u00"}]}`:                    `invalid character`,
		`{"ensembles":[{"peer_info":[{"info":"asleep"}]}]}`:  `info: "asleep" is none of ["node down" "unknown"]`,
		`{"ensembles":[{"peer_info":[{"info":7}]}]}`:         `cannot unmarshal number`,
		`{"ensembles":[{"peer_info":[{"info":{"epoch":1}}]}`: `unexpected end`,
	} {
		err := json.Unmarshal([]byte(in), new(Report))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", in, err, want)
		}
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestTheWritersErrorIsReturned(t *testing.T) {
	r := &Report{Enabled: true, Ensembles: []Ensemble{{ID: "root"}}}
	for name, err := range map[string]error{
		"summary":   r.Summary(failingWriter{}),
		"detail":    r.Detail(failingWriter{}, "root"),
		"no detail": r.Detail(failingWriter{}, "x"),
	} {
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// Whatever comes over the socket: no panic, each print ends in a line end, and
// a state that was read is written and read again as the same text.
func FuzzReport(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "root")
	}
	f.Add([]byte(`{"enabled":true,"ensembles":[{"views":[[],null]},{"id":"root","ping":{"leader":{}},"peer_info":[{"info":null}]}]}`), "+2")
	f.Fuzz(func(t *testing.T, b []byte, arg string) {
		var r Report
		if json.Unmarshal(b, &r) != nil {
			return
		}
		text := output(t, &r, nil) + output(t, &r, []string{arg})
		if !strings.HasSuffix(text, "\n") {
			t.Errorf("no line end in %q", text)
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again Report
		decode(t, b, &again)
		if got := output(t, &again, nil) + output(t, &again, []string{arg}); got != text {
			t.Errorf("after a round trip\n%s\nbefore\n%s", got, text)
		}
	})
}
