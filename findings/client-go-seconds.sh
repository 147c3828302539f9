#!/usr/bin/env bash
# k8s.io/client-go v0.34.1, leaderelection with a Lease: what is left of times below a second.
#
# Seen: two leaders, when the first one is cut off from the API server and stops only when its
# RenewDeadline is over. LeaseDuration is cut to whole seconds for the others: the Lease says
# 1 s where 1.9 s are set, and the first one goes on by its RenewDeadline of 1.8 s, which was
# compared with 1.9 s and found to be below. And with 2 s there are two as well, for 0.5 to 1 s:
# the Lease has microseconds in renewTime, but the others compare it by its seconds, so that
# they see no more than the first renewal of each second, and count 2 s from that one on. With
# 4 s there is one leader at a time.
#
# Expected: that the configuration is safe which is not refused, RenewDeadline below
# LeaseDuration; and that a duration counts as it is set, a renewal when it is seen.
#
# For a user of leader election: LeaseDuration, without its fraction, has to be longer than
# RenewDeadline by a second and a RetryPeriod. The values that are usual, 15 and 10 s, are;
# small ones, for tests or for a quick succession, are not.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
cat >main.go <<'EOF'
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	api "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

const renewDeadline = 1800 * time.Millisecond

var changed bool

func want(what, got, before string) {
	fmt.Printf("%s: %s\n", what, got)
	if got != before {
		fmt.Printf("  changed: it was %s\n", before)
		changed = true
	}
}

// candidate takes part in the election of the lease named backup until ctx ends. It reaches the
// objects of the API server as long as cut is false.
func candidate(ctx context.Context, id string, objects api.ObjectTracker, cut *atomic.Bool, lease time.Duration) (led, stopped chan time.Time) {
	client := fake.NewClientset()
	client.PrependReactor("*", "*", func(action api.Action) (bool, runtime.Object, error) {
		if cut.Load() {
			return true, nil, errors.New("cut off")
		}
		return api.ObjectReaction(objects)(action)
	})
	led, stopped = make(chan time.Time, 1), make(chan time.Time, 1)
	go leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: "default", Name: "backup"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: id},
		},
		LeaseDuration: lease, RenewDeadline: renewDeadline, RetryPeriod: 100 * time.Millisecond,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { led <- time.Now() },
			OnStoppedLeading: func() { stopped <- time.Now() },
		},
	})
	return led, stopped
}

func at(what string, c chan time.Time) time.Time {
	select {
	case t := <-c:
		return t
	case <-time.After(30 * time.Second):
		panic("waited in vain: " + what)
	}
}

// cutOff says what the Lease has for its duration, and how long the first leader, which is cut
// off, leads on beside the second one.
func cutOff(lease time.Duration) (seconds int32, both time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	objects := fake.NewClientset()
	var cut, never atomic.Bool
	led, stopped := candidate(ctx, "first", objects.Tracker(), &cut, lease)
	at("the first one leads", led)
	second, _ := candidate(ctx, "second", objects.Tracker(), &never, lease)
	// The second one sees some renewals. The last one comes at the end of a second of the clock.
	time.Sleep(1500 * time.Millisecond)
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1950 * time.Millisecond)))
	object, err := objects.CoordinationV1().Leases("default").Get(ctx, "backup", metav1.GetOptions{})
	if err != nil {
		panic(err)
	}
	cut.Store(true)
	next := at("the second one leads", second)
	end := at("the first one stops", stopped)
	return *object.Spec.LeaseDurationSeconds, end.Sub(next)
}

func main() {
	klog.SetLogger(logr.Discard())
	for _, c := range []struct {
		lease  time.Duration
		before string
	}{
		{1900 * time.Millisecond, "the Lease says 1 s, two leaders: true"},
		{2 * time.Second, "the Lease says 2 s, two leaders: true"},
		{4 * time.Second, "the Lease says 4 s, two leaders: false"},
	} {
		seconds, both := cutOff(c.lease)
		want(fmt.Sprintf("LeaseDuration %4v, RenewDeadline %v", c.lease, renewDeadline),
			fmt.Sprintf("the Lease says %d s, two leaders: %t", seconds, both > 0), c.before)
		if both > 0 {
			fmt.Printf("  for %d ms\n", both.Milliseconds())
		}
	}
	if changed {
		os.Exit(1)
	}
}
EOF
export GOFLAGS=-mod=mod GOWORK=off
{
  go mod init seconds
  go get k8s.io/client-go@v0.34.1 k8s.io/api@v0.34.1 k8s.io/apimachinery@v0.34.1
  go mod tidy
  go build -o seconds .
} >log 2>&1 || { cat log >&2; exit 1; }
timeout 120 ./seconds
