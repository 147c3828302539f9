package main

import (
	"testing"

	"leaderlatch/ensemble"
	"leaderlatch/riakconf"
)

// The configuration knows the newest level, without knowing who writes it.
func TestTheNewestFormatLevelIsOne(t *testing.T) {
	if riakconf.NewestFormatLevel != ensemble.NewestLevel {
		t.Errorf("riak.conf takes levels up to %d, the service writes up to %d", riakconf.NewestFormatLevel, ensemble.NewestLevel)
	}
}
