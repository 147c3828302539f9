package state

import "testing"

// Every level has its versions, none lower than those of the level before, nor more.
func TestLevels(t *testing.T) {
	if len(levels) != NewestLevel+1 {
		t.Fatalf("versions of %d levels, want %d", len(levels)-1, NewestLevel)
	}
	for level := FirstLevel; level <= NewestLevel; level++ {
		v, before := levels[level], levels[max(level-1, FirstLevel)]
		if v.entry < max(1, before.entry) || v.snapshot < max(1, before.snapshot) || v.logstore < max(1, before.logstore) {
			t.Errorf("level %d has %+v, the one before %+v", level, v, before)
		}
	}
}
