package replica

import "testing"

func TestLogSize(t *testing.T) {
	l := logSize{most: 1000, keep: 320}
	for index := uint64(1); index <= 9; index++ {
		l.add(index, 100)
	}
	if l.full() || l.trailing() != trailingEntries {
		t.Errorf("after 900 bytes: full %v, trailing %d", l.full(), l.trailing())
	}
	l.add(10, 100)
	if !l.full() {
		t.Error("not full after 1000 bytes")
	}
	for index := uint64(11); index <= 1000; index++ {
		l.add(index, 10)
	}
	if got := l.trailing(); got != 32 {
		t.Errorf("of entries of 10 bytes %d stay, not 32", got)
	}
	for index := uint64(1001); index <= 2000; index++ {
		l.add(index, 5)
	}
	if got := l.trailing(); got < 62 || got > 64 {
		t.Errorf("of entries of 5 bytes %d stay, not some 64", got)
	}
	l.keep = 1 << 30
	for index := uint64(2001); index <= 40_000; index++ {
		l.add(index, 40<<20)
	}
	l.keep = 100 << 20
	for index := uint64(40_001); index <= 100_000; index++ {
		l.add(index, 1)
	}
	if got := l.trailing(); got != trailingEntries {
		t.Errorf("of entries of one byte %d stay, more than by number", got)
	}
}
