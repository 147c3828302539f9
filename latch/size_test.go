package latch

import (
	"testing"
	"unsafe"
)

// TestConnIsSmall: what a node pays for each of a hundred thousand connections.
func TestConnIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(conn{}); n > 288 {
		t.Errorf("a connection has %d bytes, more than the size class of 288", n)
	}
}
