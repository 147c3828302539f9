package state

import (
	"crypto/sha256"
	"crypto/subtle"
	"time"
)

// Key is what the state knows of the key of a keyed member: a checksum, from which the key
// cannot be found, as it has 128 random bits. The key itself is in no state, entry or
// snapshot.
type Key [sha256.Size]byte

// KeyOf gives that of a client's key, which counts for this name in this group only. No name
// has a space in it (latch/PROTOCOL.md, rule 9), so no two clients have one text.
func KeyOf(group, client, key string) Key {
	return sha256.Sum256([]byte(group + " " + client + " " + key))
}

// keyed is what a keyed member has beyond other members. It does not change, so that a
// snapshot may read it at any time.
type keyed struct {
	key  Key
	hold time.Duration
}

// is reports whether a key is this one, in a time that does not depend on the keys.
func (k *keyed) is(key Key) bool {
	return k != nil && subtle.ConstantTimeCompare(k.key[:], key[:]) == 1
}

// length is its hold; 0 for a plain member.
func (k *keyed) length() time.Duration {
	if k == nil {
		return 0
	}
	return k.hold
}
