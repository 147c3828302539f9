package state

import "testing"

// built is the newest level that there is code for. NewestLevel may not have reached it.
const built = uint64(len(levels) - 1)

// Every level has its versions, none lower than those of the level before, nor more. One
// more than the newest may be under way.
func TestLevels(t *testing.T) {
	if built < NewestLevel || built > NewestLevel+1 {
		t.Fatalf("versions of %d levels, the newest is %d", built, NewestLevel)
	}
	for level := uint64(FirstLevel); level <= built; level++ {
		v, before := levels[level], levels[max(level-1, FirstLevel)]
		if v.entry < max(1, before.entry) || v.snapshot < max(1, before.snapshot) || v.logstore < max(1, before.logstore) {
			t.Errorf("level %d has %+v, the one before %+v", level, v, before)
		}
	}
}
