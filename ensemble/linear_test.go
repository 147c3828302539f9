package ensemble

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What clients see of a group has to be explained by one order in which their
// joining and leaving took effect, each between its beginning and its end, and in
// which the first who is left leads.

// joinOp is a JOIN, whose answer says who leads. One that was never answered may
// have taken effect at any time, or never.
type joinOp struct {
	client int // a connection
	name   string
}

// leaveOp is the end of a connection. Nobody is told when it takes effect.
type leaveOp struct{ client int }

// groupModel is a group: its members, a line for each, in order of joining.
var groupModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		members := strings.Fields(state.(string))
		switch op := input.(type) {
		case joinOp:
			taken := slices.ContainsFunc(members, func(m string) bool { return strings.HasSuffix(m, "="+op.name) })
			answer := output.(string)
			if taken {
				return answer == "", state // it waits, or was given up
			}
			members = append(members, fmt.Sprintf("%d=%s", op.client, op.name))
			_, leader, _ := strings.Cut(members[0], "=")
			return answer == "" || answer == leader, strings.Join(members, " ")
		case leaveOp:
			members = slices.DeleteFunc(members, func(m string) bool { return strings.HasPrefix(m, fmt.Sprint(op.client, "=")) })
			return true, strings.Join(members, " ")
		}
		return false, state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %q", input, output) },
}

// checkLinear holds the histories of groups against the model. What takes too long
// to decide is counted and left open.
func checkLinear(t *testing.T, histories map[string][]porcupine.Operation) (checked, open int) {
	for group, ops := range histories {
		slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		switch porcupine.CheckOperationsTimeout(groupModel, ops, 2*time.Second) {
		case porcupine.Ok:
			checked++
		case porcupine.Unknown:
			open++
		case porcupine.Illegal:
			t.Errorf("group %s: no order explains what its clients saw:", group)
			for _, op := range ops {
				t.Errorf("  %8.3f .. %8.3f %s", float64(op.Call)/1e9, float64(op.Return)/1e9, groupModel.DescribeOperation(op.Input, op.Output))
			}
		}
	}
	return checked, open
}

// The checker finds what it is for.
func TestTheCheckerOfOrders(t *testing.T) {
	const never = math.MaxInt64
	op := func(call, end int64, input any, output string) porcupine.Operation {
		return porcupine.Operation{Input: input, Output: output, Call: call, Return: end}
	}
	for _, c := range []struct {
		name string
		ops  []porcupine.Operation
		ok   bool
	}{
		{"in order", []porcupine.Operation{op(1, 2, joinOp{1, "a"}, "a"), op(3, 4, joinOp{2, "b"}, "a"), op(5, never, leaveOp{1}, ""), op(6, 7, joinOp{3, "c"}, "b")}, true},
		{"at once", []porcupine.Operation{op(1, 9, joinOp{1, "a"}, "b"), op(1, 9, joinOp{2, "b"}, "b")}, true},
		{"two firsts", []porcupine.Operation{op(1, 9, joinOp{1, "a"}, "a"), op(1, 9, joinOp{2, "b"}, "b")}, false},
		{"a leader who left long ago", []porcupine.Operation{op(1, 2, joinOp{1, "a"}, "a"), op(3, 4, joinOp{2, "b"}, "a"), op(5, 6, leaveOp{1}, ""), op(7, 8, joinOp{3, "c"}, "a")}, false},
		{"who came later leads first", []porcupine.Operation{op(1, 2, joinOp{1, "a"}, "a"), op(3, 4, joinOp{2, "b"}, "b")}, false},
		{"never answered, and led", []porcupine.Operation{op(1, never, joinOp{1, "a"}, ""), op(3, 4, joinOp{2, "b"}, "a")}, true},
		{"a name twice", []porcupine.Operation{op(1, 2, joinOp{1, "a"}, "a"), op(3, 4, joinOp{2, "a"}, "a")}, false},
	} {
		if got := porcupine.CheckOperations(groupModel, c.ops); got != c.ok {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
