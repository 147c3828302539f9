//go:build faults

package main

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"leaderlatch/ensemble/session"
)

// starve lets a process run for a little while and stops it for a longer one, in turn, as a
// quota of the processor does, until the end is asked for.
func starve(process interface{ signal(syscall.Signal) }, stopped, running time.Duration) (end func()) {
	over := make(chan struct{})
	var starving sync.WaitGroup
	starving.Go(func() {
		for {
			process.signal(syscall.SIGSTOP)
			time.Sleep(stopped)
			process.signal(syscall.SIGCONT)
			select {
			case <-over:
				return
			case <-time.After(running):
			}
		}
	})
	return sync.OnceFunc(func() { close(over); starving.Wait() })
}

// A raft leader that gets 15 ms in every 125 looks late each time, and stays the raft leader.
// The leader of a node that dies is replaced all the same.
func TestFaultTheRaftLeaderIsAlwaysLate(t *testing.T) {
	for _, tm := range []session.Timing{session.Normal, session.Calm} {
		t.Run(tm.Name, func(t *testing.T) {
			all := founders(t, 3, "leader_latch.timing = "+tm.Name)
			for _, m := range all {
				m.run()
			}
			wantWhole(all)
			late, rest := raftLeader(t, all)
			group := unique("late")
			lead := rest[0].join(group, "lead", "lead")
			next := rest[1].join(group, "next", "lead")
			defer starve(late, 110*time.Millisecond, 15*time.Millisecond)()
			for began := time.Now(); time.Since(began) < tm.Expiry; {
				rest[1].probe() // it goes on, slowly
			}
			lead.wantSilence()
			began := time.Now()
			rest[0].kill()
			next.want("LEADER next")
			took(t, "the raft leader is always late ("+tm.Name+"): the next leader was told", time.Since(began), tm.Expiry+1600*time.Millisecond)
			if now, _ := raftLeader(t, []*member{rest[1], late}); now != late {
				t.Logf("%s has become the raft leader meanwhile", now.name)
			}
		})
	}
}
