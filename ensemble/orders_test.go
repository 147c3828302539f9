package ensemble

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// An order is answered by the raft leader, whichever node it is given to, and from
// outside the cluster too.
func TestTheRaftLeaderAnswersOrders(t *testing.T) {
	var all []*machine
	for _, name := range []string{"a@127.0.0.1", "b@127.0.0.1"} {
		all = append(all, newMachine(t, name, func(c *Config) {
			c.Order = func(_ context.Context, term uint64, with json.RawMessage) (any, error) {
				if string(with) == `"refuse"` || term == 0 {
					return nil, errors.New("it is refused")
				}
				return name + string(with), nil
			}
		}).start())
	}
	a, b := all[0], all[1]
	want := func(answer string, err error, want string) {
		t.Helper()
		if err != nil || answer != want {
			t.Errorf("answered %q, %v; want %q", answer, err, want)
		}
	}
	var is string
	err := b.Order(t.Context(), "x", &is)
	want(is, err, b.name+`"x"`)
	err = b.OrderAt(t.Context(), a.place(), "x", &is)
	want(is, err, a.name+`"x"`)

	if err := b.JoinCluster(t.Context(), a.place()); err != nil {
		t.Fatal(err)
	}
	b.again()
	poll(t, "two members", func() bool { return a.cluster.size() == 2 && b.cluster.size() == 2 && b.dir.id().Join == "" })
	for _, m := range all {
		err := m.Order(t.Context(), "x", &is)
		want(is, err, a.name+`"x"`)
		if err := m.Order(t.Context(), "refuse", &is); err == nil || !strings.Contains(err.Error(), "it is refused") {
			t.Errorf("refused: %v", err)
		}
	}
	kill(a.Node)
	if err := b.OrderAt(t.Context(), a.place(), "x", &is); !errors.Is(err, ErrUnreachable) {
		t.Errorf("of a dead node: %v", err)
	}
}
