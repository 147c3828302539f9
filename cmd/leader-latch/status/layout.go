package status

import (
	"fmt"
	"strings"
)

// width is that of Riak's titles and rules, in columns.
const width = 79

// centre puts s into n columns filled up with pad; an odd one goes to the
// right. Of a longer s the middle n columns are left, an odd one lost on the
// right.
func centre(s string, n int, pad string) string {
	if over := len(s) - n; over > 0 {
		return s[over/2 : over/2+n]
	}
	left := (n - len(s)) / 2
	return strings.Repeat(pad, left) + s + strings.Repeat(pad, n-len(s)-left)
}

func title(s string) string { return centre(" "+s+" ", width, "=") + "\n" }

func rule() string { return strings.Repeat("-", width) + "\n" }

func cell(s string, n int) string { return centre(s, n, " ") }

// ratio is "a / b" in three columns each; a number that needs more is shown as
// stars, as Riak does.
func ratio(a, b int) string {
	return fmt.Sprintf("%3s / %-3s", threeDigits(a), threeDigits(b))
}

func threeDigits(n int) string {
	if n > 999 {
		return "***"
	}
	return fmt.Sprint(n)
}
