package ensemble

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"leaderlatch/ensemble/clusterport"
)

// nextKey is the key of another cookie than that of testKey.
func nextKey(t *testing.T) *clusterport.Key {
	t.Helper()
	key, err := clusterport.KeyFromSeed([32]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A node takes no key by which it and other members would not let each other in, or by which
// that cannot be told. It names all of them.
func TestAKeyThatWouldCutANodeOff(t *testing.T) {
	all := founders(t, 3)
	is, err := testKey()
	if err != nil {
		t.Fatal(err)
	}
	comes := nextKey(t)
	rekey := func(m *machine, key *clusterport.Key, want ...string) {
		t.Helper()
		err := m.Rekey(t.Context(), key)
		if err == nil && want == nil {
			return
		}
		slices.Sort(want)
		if err == nil || !slices.EqualFunc(strings.Split(err.Error(), "\n"), want, strings.HasPrefix) {
			t.Fatalf("%s: error %v, want %q", m.name, err, want)
		}
	}
	apart := func(m *machine) string {
		return m.name + " and this node would not let each other in: do the step before on that one first"
	}
	rekey(all[0], comes, apart(all[1]), apart(all[2]))
	rekey(all[1], comes.Accepting(is), apart(all[0]), apart(all[2]))
	for _, m := range all {
		rekey(m, is.Accepting(comes))
	}
	rekey(all[0], comes, apart(all[1]), apart(all[2]))
	rekey(all[0], comes.Accepting(is))
	rekey(all[1], is, apart(all[0]))
	kill(all[2].Node)
	const gone = " cannot be asked whether it knows this cookie ("
	rekey(all[1], comes.Accepting(is), all[2].name+gone)
	rekey(all[1], is, apart(all[0]), all[2].name+gone)
	join(t, all[0].Node, "g", "a").wantTold("a")
	join(t, all[1].Node, "g", "b").wantTold("a")
}

// All members are asked at once. When the node ends meanwhile, nobody waits for their answers.
func TestAKeyThatIsTriedWhenTheNodeEnds(t *testing.T) {
	type trial struct{}
	dialling, gaveUp := make(chan string), make(chan error, 2)
	all := foundersWith(t, 3, func(i int, c *Config) {
		c.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if ctx.Value(trial{}) == nil {
				return new(net.Dialer).DialContext(ctx, network, address)
			}
			dialling <- address
			<-ctx.Done()
			gaveUp <- ctx.Err()
			return nil, ctx.Err()
		}
	})
	rekeyed := make(chan error, 1)
	go func() { rekeyed <- all[0].Rekey(context.WithValue(t.Context(), trial{}, true), nextKey(t)) }()
	asked := []string{<-dialling, <-dialling}
	slices.Sort(asked)
	want := []string{all[1].address, all[2].address}
	slices.Sort(want)
	if !slices.Equal(asked, want) || len(gaveUp) > 0 {
		t.Errorf("asked %q at once, want %q", asked, want)
	}
	all[0].failed(ErrAnew)
	for range asked {
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("a question ended by %v, not as the node did", err)
		}
	}
	if err := <-rekeyed; !errors.Is(err, ErrAnew) {
		t.Errorf("error %v, want %v", err, ErrAnew)
	}
}

// A key is not taken when nobody waits for that any more.
func TestAKeyThatNobodyWaitsFor(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Rekey(ctx, nextKey(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if err := n.Rekey(t.Context(), nextKey(t)); err != nil {
		t.Error(err)
	}
}
