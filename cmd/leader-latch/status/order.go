package status

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
)

const rootID = "root"

// ordered returns the ensembles in the order of their numbers: root first,
// then by the size of the largest view, then by id.
func (r *Report) ordered() []Ensemble {
	if !r.Enabled {
		return nil
	}
	return slices.SortedStableFunc(slices.Values(r.Ensembles), func(a, b Ensemble) int {
		return cmp.Or(
			cmp.Compare(isRoot(b), isRoot(a)),
			cmp.Compare(a.size(), b.size()),
			compareIDs(a.ID, b.ID),
		)
	})
}

func isRoot(e Ensemble) int {
	if e.ID == rootID {
		return 1
	}
	return 0
}

func (e *Ensemble) size() int {
	n := 0
	for _, v := range e.Views {
		n = max(n, len(v))
	}
	return n
}

// find returns the ensemble that the operator asked for and its number: root,
// or an integer in the syntax of Erlang (a sign and leading zeros are allowed).
// If there is none, name is what to call it in the answer, and the ensemble is
// nil.
func (r *Report) find(arg string) (e *Ensemble, number int, name string) {
	if arg == rootID {
		arg = "1"
	}
	n, ok := new(big.Int).SetString(arg, 10)
	if !ok {
		return nil, 0, arg
	}
	all := r.ordered()
	if n.Sign() <= 0 || n.Cmp(big.NewInt(int64(len(all)))) > 0 {
		return nil, 0, n.String()
	}
	number = int(n.Int64())
	return &all[number-1], number, ""
}

func comparePeers(a, b Peer) int {
	return cmp.Or(compareIDs(a.ID, b.ID), cmp.Compare(a.Node, b.Node))
}

// compareIDs orders ids as Erlang orders the terms that they stand for, as far
// as ensembles need it: runs of digits by their value, all else by bytes.
// {kv,9,3} is before {kv,10,3}.
func compareIDs(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			if c := compareNumbers(a[:da], b[:db]); c != 0 {
				return c
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is the length of the run of digits at the start of s.
func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// compareNumbers compares decimals of any length: ring positions have up to 49
// digits.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
