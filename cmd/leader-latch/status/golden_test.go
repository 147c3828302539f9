package status

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const dir = "../../../testdata/ensemble-status"

// cases is how many outputs of Riak there are. None may get lost.
const cases = 56

// A golden is a file of testdata/ensemble-status: a state and what was asked.
type golden struct {
	Command  []string `json:"command"`
	ExitCode int      `json:"exit_code"`
	Report
}

func (g *golden) UnmarshalJSON(b []byte) error {
	head := struct {
		Command  *[]string `json:"command"`
		ExitCode *int      `json:"exit_code"`
	}{&g.Command, &g.ExitCode}
	if err := json.Unmarshal(b, &head); err != nil {
		return err
	}
	return json.Unmarshal(b, &g.Report)
}

func TestPrintsWhatRiakPrints(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, file := range files {
		ok := t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			g := readGolden(t, file)
			want := readFile(t, strings.TrimSuffix(file, ".json")+".txt")
			got := variations(t)
			if g.Command != nil {
				got = output(t, &g.Report, g.Command[2:])
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if g.ExitCode != 0 {
				t.Errorf("exit code %d: a case where Riak crashed is no case for us", g.ExitCode)
			}
		})
		if ok {
			passed++
		}
	}
	t.Logf("%d of %d cases print what Riak prints", passed, len(files))
	if len(files) != cases {
		t.Errorf("%d cases in %s, want %d", len(files), dir, cases)
	}
}

// What a node sends must be what the command reads, and both what is in the
// files: the encoded state differs from the file in nothing.
func TestStatesKeepTheirShape(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		g := readGolden(t, file)
		if g.Command == nil {
			continue
		}
		b, err := json.Marshal(&g.Report)
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		decode(t, b, &got)
		decode(t, readFile(t, file), &want)
		for _, k := range []string{"description", "command", "exit_code"} {
			delete(want, k)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: encoded state is %s", file, b)
		}
	}
}

// output is what the command prints with the arguments after its name.
func output(t *testing.T, r *Report, args []string) string {
	t.Helper()
	var b strings.Builder
	var err error
	switch len(args) {
	case 0:
		err = r.Summary(&b)
	case 1:
		err = r.Detail(&b, args[0])
	default:
		t.Fatalf("arguments %q", args)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// variations prints the states of Riak's own list of samples.
func variations(t *testing.T) string {
	const root = "@127.0.0.1"
	peer := func(id, dev string) Peer { return Peer{ID: id, Node: dev + root} }
	view := func(id string, devs ...string) (v []Peer) {
		for _, d := range devs {
			v = append(v, peer(id, d))
		}
		return v
	}
	state := func(dev, state string) PeerInfo {
		return PeerInfo{peer("test", dev), Info{State: state, Trusted: true, Epoch: "1"}}
	}
	leader := peer("test", "dev1")
	ping := Ping{Leader: &leader, Ready: true, Replied: view("test", "dev1", "dev2")}
	single := view("test", "dev1", "dev2", "dev3")
	joint := view("test", "dev1", "dev2", "dev4")
	report := func(enabled, active bool, nodes int, ensembles ...Ensemble) *Report {
		return &Report{Enabled: enabled, Active: active, RingReady: true, TreeValidation: true,
			ReadyMembers: []string{"dev1", "dev2", "dev3"}[:nodes], Ensembles: ensembles}
	}
	good := func(views [][]Peer, infos ...PeerInfo) *Report {
		return report(true, true, 3,
			Ensemble{ID: "test", Views: views, Ping: ping, PeerInfo: infos},
			Ensemble{ID: "test2", Views: [][]Peer{view("test2", "dev1", "dev2", "dev3")}, Ping: Ping{Timeout: true}})
	}
	one, two := [][]Peer{single}, [][]Peer{single, joint}
	dev1, dev2, dev3 := state("dev1", "leading"), state("dev2", "following"), state("dev3", "following")

	var b strings.Builder
	sample := func(title string, r *Report, args ...string) {
		b.WriteString("(*** " + title + " ***)\n\n" + output(t, r, args) + "\n\n")
	}
	sample("Ensemble system not configured", report(false, false, 1))
	sample("Enabled but too few nodes", report(true, false, 1))
	sample("All good, waiting on activation", report(true, false, 3))
	sample("Active but no ensembles", report(true, true, 3))
	sample("Standard output", good(one))
	sample("Standard output w/ multiple views", good(two))
	sample("Standard ensemble output", good(one, dev1, dev2, dev3), "1")
	sample("Ensemble output w/ offline node", good(one, dev1, PeerInfo{peer("test", "dev2"), Info{Down: true}}, dev3), "1")
	sample("Ensemble output w/ unknown info", good(one, dev1, PeerInfo{Peer: peer("test", "dev2")}, dev3), "1")
	sample("Standard ensemble output w/ multiple views", good(two, dev1, dev2, dev3, state("dev4", "following")), "1")
	return b.String()
}

func readGolden(t *testing.T, file string) *golden {
	t.Helper()
	g := new(golden)
	decode(t, readFile(t, file), g)
	return g
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}
