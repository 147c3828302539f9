package ensemble

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"strings"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/durable"
)

// The key of a cookie takes 0.2 s of a processor and 64 MiB to derive, so that guessing
// cookies takes long. A node that is started would be reached by no other meanwhile, so the
// folder keeps the key. DESIGN.md (On disk) says why that gives nothing away.

// keptKeys is how many keys are kept: that of the cookie, and that of the one before, which
// is often the one after as well.
const keptKeys = 2

// Key gives the key of a cookie. It derives it only where the folder has not kept it of an
// earlier start: the cookie is another one, or the folder was another machine's.
func (d *Dir) Key(cookie string) (*clusterport.Key, error) {
	d.deriving.Lock()
	defer d.deriving.Unlock()
	kept := *d.sealed.Load()
	for _, text := range kept {
		if b, err := base64.StdEncoding.DecodeString(text); err == nil {
			if key, err := clusterport.OpenKey(b, cookie, d.machine); err == nil {
				return key, nil
			}
		}
	}
	key, err := d.derive(cookie)
	if err != nil || d.machine == "" {
		return key, err
	}
	b, err := key.Seal(cookie, d.machine)
	if err != nil { // a Go runtime that holds to FIPS 140 seals nothing under a short cookie
		return key, nil
	}
	sealed := append([]string{base64.StdEncoding.EncodeToString(b)}, kept[:min(len(kept), keptKeys-1)]...)
	d.sealed.Store(&sealed)
	// Nobody waits for the disk. Should it fail, the next start derives the key again.
	go d.Do(func() error {
		return durable.WriteFile(d.Path("cookie.key"), []byte(strings.Join(*d.sealed.Load(), "\n")+"\n"))
	})
	return key, nil
}

// readKeys reads the keys that an earlier start has left. Whatever else may be in that file,
// or keep it from being read, costs a derivation.
func (d *Dir) readKeys() {
	b, _ := os.ReadFile(d.Path("cookie.key"))
	sealed := strings.Fields(string(b))
	d.sealed.Store(&sealed)
	d.machine = machineID()
}

// machineID tells this machine from all others; empty: it does not say (machine-id(5)).
func machineID() string {
	b, _ := os.ReadFile("/etc/machine-id")
	id := strings.TrimSpace(string(b))
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		return ""
	}
	return id
}
