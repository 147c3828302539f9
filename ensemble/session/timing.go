package session

import (
	"fmt"
	"time"
)

// Timing is how soon a silent node's members are replaced, and all that hangs
// on it (DESIGN.md, rule 7). [Timing.Check] holds the
// inequality that makes it safe.
type Timing struct {
	Name      string
	Heartbeat time.Duration // Raft's heartbeat and election timeouts; a raft leader is missed after it and up to a quarter
	Renew     time.Duration // R: a renewal is sent this often
	Lease     time.Duration // L: a node may speak for so long after it sent the last accepted renewal
	Close     time.Duration // C: how late timers may be, and how long closing the leaders' connections may take
	Expiry    time.Duration // S: silent for so long, a session may be expired by the others
}

// The three timings an operator chooses from.
var (
	Quick  = Timing{"quick", 200 * time.Millisecond, 100 * time.Millisecond, 800 * time.Millisecond, 150 * time.Millisecond, 1000 * time.Millisecond}
	Normal = Timing{"normal", 350 * time.Millisecond, 400 * time.Millisecond, 2000 * time.Millisecond, 300 * time.Millisecond, 2400 * time.Millisecond}
	Calm   = Timing{"calm", time.Second, time.Second, 6 * time.Second, 800 * time.Millisecond, 7 * time.Second}
)

// Rho bounds how much faster or slower than real time a machine's clock may
// run, as a fraction; kernels slew clocks by at most half of it.
const Rho = 0.001

// TimingNamed gives the timing of a name that an operator wrote.
func TimingNamed(name string) (Timing, error) {
	for _, t := range []Timing{Quick, Normal, Calm} {
		if t.Name == name {
			return t, nil
		}
	}
	return Timing{}, fmt.Errorf("no timing %q; there are quick, normal and calm", name)
}

// closingPace is how long closing one connection takes, whether the node does it
// or the kernel, for a process that dies: measured as 18 us on two cores, rounded up.
const closingPace = 25 * time.Microsecond

// MaxMembers is how many clients a node may hold: as many as are closed in half of
// the lease. The closing has to begin that much before the lease ends.
func (t Timing) MaxMembers() int { return int(t.Lease / 2 / closingPace) }

// early is how long before the end of the lease the closing of so many clients
// has to begin.
func (t Timing) early(members int) time.Duration {
	return min(time.Duration(members)*closingPace, t.Lease/2)
}

// KillAfter is how long after the sending of the last renewal a process that does
// nothing has to be killed, for the kernel to have closed so many connections
// when lease and closing time are over.
func (t Timing) KillAfter(members int) time.Duration {
	return t.Lease + t.Close - max(t.Close/2, time.Duration(members)*closingPace)
}

// lookEvery is how often a node looks at its clocks that has to close its connections
// soon, or has no session, or watches the sessions of others as the raft leader: the
// expirer takes a look later than stallLimit for its own fault, and acts at the next one.
// Any other node looks rarelyLook times as rarely. Clients that join between two looks
// have it begin to close late, by less than the time between them.
func (t Timing) lookEvery() time.Duration {
	return min(max(t.Close/10, 5*time.Millisecond), 50*time.Millisecond)
}

const rarelyLook = 3

// Check reports an error unless a session is expired only after its node has
// closed all connections, however the two clocks run: S >= (L + C) (1+rho)/(1-rho).
func (t Timing) Check() error {
	if need := time.Duration(float64(t.Lease+t.Close) * (1 + Rho) / (1 - Rho)); t.Expiry < need {
		return fmt.Errorf("timing %s: expiry %v is below %v, which lease and close time need", t.Name, t.Expiry, need)
	}
	if t.Renew <= 0 || t.Lease <= t.Renew+2*t.Heartbeat {
		return fmt.Errorf("timing %s: lease %v does not outlast a renewal and an election", t.Name, t.Lease)
	}
	return nil
}
