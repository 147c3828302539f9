// Package packaging holds what the packages and the program must agree on. The rest of
// its folder is what makes the packages, and what is installed beside the program.
package packaging

import (
	_ "embed"
	"strings"
)

//go:embed VERSION
var version string

// Version is the version of the program and of its packages, three numbers with dots
// between. It is the line of the file VERSION, so that every build has it.
func Version() string { return strings.TrimSpace(version) }
