package latch_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// parkAtOnce is set where the tests run with connections that are parked at once.
const parkAtOnce = "LEADER_LATCH_TEST_PARK_AT_ONCE"

// All that the other tests claim holds for parked connections too.
func TestAllOfThisWhileParked(t *testing.T) {
	if os.Getenv(parkAtOnce) != "" {
		t.Skip("this is it")
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.timeout=5m")
	if testing.Short() {
		cmd.Args = append(cmd.Args, "-test.short")
	}
	cmd.Env = append(os.Environ(), parkAtOnce+"=yes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// parks waits until so many connections are parked.
func (f *fixture) parks(n int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprint(n, " connections are parked"), func() bool { return f.s.Parked() == n })
}

// Who waits to be told costs no goroutine, and misses nothing for that.
func TestWhoIsSilentIsParked(t *testing.T) {
	f := serve(t)
	const members = 50
	var all []*client
	for i := range members {
		all = append(all, f.join("g", fmt.Sprint("c", i), "c0"))
	}
	f.parks(members)

	all[1].send("HELLO")
	all[1].want("ERROR")
	f.parks(members)
	if _, err := all[1].Write([]byte("JOIN g ")); err != nil { // it is not done with its line
		t.Fatal(err)
	}
	f.parks(members - 1)
	all[1].send("x")
	all[1].want("ALREADY_JOINED g c1")
	f.parks(members)

	all[0].TCPConn.Close()
	for _, c := range all[1:] {
		c.want("LEADER c1")
	}
	all[1].reset()
	for _, c := range all[2:] {
		c.want("LEADER c2")
	}
	f.parks(members - 2)
	f.e.End("g", "c2")
	all[2].wantEnd()
	all[2].TCPConn.Close()
	for _, c := range all[3:] {
		c.want("LEADER c3")
	}
	eventually(t, "those have left", func() bool { return f.s.Conns() == members-3 })
	f.s.Close()
	for _, c := range all[3:] {
		c.wantEnd()
	}
}

// Where the kernel watches nothing for the server, a goroutine waits for each client.
func TestWithoutParking(t *testing.T) {
	f := serve(t)
	f.s.ParkNone()
	a, b := f.join("g", "a", "a"), f.join("g", "b", "a")
	eventually(t, "both are to be parked, and stay", func() bool { return f.s.Staying() == 2 && f.s.Parked() == 0 })
	eventually(t, "that is told of", func() bool { return len(f.log.lines("cannot be watched")) == 1 })
	b.send("HELLO")
	b.want("ERROR")
	a.TCPConn.Close()
	b.want("LEADER b")
}
