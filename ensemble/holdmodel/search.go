package main

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A result is what a search has found.
type result struct {
	states    int           // different ones, of a search breadth first
	depth     int           // steps to the farthest of them
	exhausted bool          // there are no others
	walks     int           // of random walks
	steps     int           // of all walks
	promises  int           // answers to PING that were read in walks
	moves     int           // Moves in walks
	took      time.Duration //
	played    [verbs]bool   // which kinds of steps there were
	broken    property      // by the schedule
	schedule  []action      //
}

func (r result) String() string {
	b := fmt.Sprintf("%d states to depth %d", r.states, r.depth)
	if r.walks > 0 {
		b = fmt.Sprintf("%d walks, %d steps, %d promises, %d Moves", r.walks, r.steps, r.promises, r.moves)
	} else if r.exhausted {
		b += ", all"
	}
	return fmt.Sprintf("%s, %.1f s", b, r.took.Seconds())
}

// breadthFirst looks at all states, nearest first, until one breaks a property, or the limit is reached.
// So a schedule that it finds is a shortest one.
func breadthFirst(limit time.Duration, most int) (r result) {
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	type step struct {
		from int32
		by   action
	}
	seed := maphash.MakeSeed()
	first := initial()
	seen := map[uint64]struct{}{maphash.Comparable(seed, first): {}} // by a hash: two states may be taken for one
	tree := []step{{-1, action{}}}
	front, ids := []State{first}, []int32{0}
	var can []action
	for ; len(front) > 0; r.depth++ {
		var next []State
		var nextIDs []int32
		for k := range front {
			if k&255 == 0 && (time.Since(began) > limit || len(tree) > most) {
				r.states = len(tree)
				return r
			}
			can = front[k].actions(can)
			for _, a := range can {
				s := front[k]
				s.do(a)
				r.played[a.verb] = true
				h := maphash.Comparable(seed, s)
				if _, ok := seen[h]; ok {
					continue
				}
				seen[h] = struct{}{}
				tree = append(tree, step{ids[k], a})
				id := int32(len(tree) - 1)
				if p := s.look(); p != 0 {
					r.states, r.broken = len(tree), p
					for ; id > 0; id = tree[id].from {
						r.schedule = append(r.schedule, tree[id].by)
					}
					slices.Reverse(r.schedule)
					return r
				}
				next, nextIDs = append(next, s), append(nextIDs, id)
			}
		}
		front, ids = next, nextIDs
	}
	r.states, r.exhausted = len(tree), true
	return r
}

const longestWalk = 120

// walkRandomly plays random schedules. The seed and the number of a walk give the walk.
func walkRandomly(seed uint64, limit time.Duration, most int) (r result) {
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	var can []action
	for found := 0; r.walks < most && found < 5 && (r.walks&63 != 0 || time.Since(began) < limit); r.walks++ {
		random := rand.New(rand.NewPCG(seed, uint64(r.walks)))
		s := initial()
		var schedule []action
		slow, rare := random.Float64(), random.IntN(4)
		for range longestWalk {
			can = s.actions(can)
			if len(can) == 0 {
				break
			}
			a := can[random.IntN(len(can))]
			switch a.verb {
			case tick:
				if random.Float64() < slow {
					a = can[random.IntN(len(can))]
				}
			case crashes, pauses, stops, sendsLeave, clientStops, nodeEnds, clientCloses:
				if random.IntN(4) > rare {
					a = can[random.IntN(len(can))]
				}
			case pings, pongs, hearsPong, reads: // as likely as it is
			default:
				if again := can[random.IntN(len(can))]; again.verb == pings || again.verb == pongs || again.verb == hearsPong {
					a = again
				}
			}
			before := s.moved[0]
			s.do(a)
			r.played[a.verb] = true
			if a.verb == hearsPong {
				r.promises++
			}
			if s.moved[0] > before {
				r.moves++
			}
			r.steps++
			schedule = append(schedule, a)
			if p := s.look(); p != 0 {
				found++
				if short := shrink(schedule); r.schedule == nil || len(short) < len(r.schedule) {
					r.broken, r.schedule = p, short
				}
				break
			}
		}
	}
	return r
}

// shrink leaves out steps for as long as what is left breaks a property too.
func shrink(schedule []action) []action {
	for again := true; again; {
		again = false
		for width := 4; width >= 1; width-- {
			for i := len(schedule) - width; i >= 0; i-- {
				if i+width > len(schedule) {
					continue
				}
				shorter := slices.Concat(schedule[:i], schedule[i+width:])
				if got := replay(shorter); got != nil && len(got) < len(schedule) {
					schedule, again = got, true
				}
			}
		}
	}
	return schedule
}

// replay plays those actions of a schedule that are possible, until a property is broken; nil if none is.
func replay(schedule []action) (played []action) {
	s := initial()
	var can []action
	for _, a := range schedule {
		if can = s.actions(can); !slices.Contains(can, a) {
			continue
		}
		s.do(a)
		played = append(played, a)
		if s.look() != 0 {
			return played
		}
	}
	return nil
}

// tell tells a schedule.
func tell(schedule []action) string {
	s := initial()
	var steps []string
	for _, a := range schedule {
		steps = append(steps, s.show(a))
		s.do(a)
	}
	return strings.Join(steps, "; ")
}
