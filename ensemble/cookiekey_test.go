package ensemble

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"leaderlatch/ensemble/clusterport"
)

// keyring is a folder, opened anew on a machine for each question, and what was derived.
type keyring struct {
	t       *testing.T
	path    string
	derived []string
}

// key asks for the key of a cookie, and says whether it was derived.
func (k *keyring) key(machine, cookie string) (derived bool) {
	k.t.Helper()
	d, err := OpenDir(k.t.Context(), k.path)
	if err != nil {
		k.t.Fatal(err)
	}
	defer d.Close()
	d.machine = machine
	before := len(k.derived)
	d.derive = func(cookie string) (*clusterport.Key, error) {
		k.derived = append(k.derived, cookie)
		return testKey()
	}
	if key, err := d.Key(cookie); key == nil || err != nil {
		k.t.Fatalf("the key of %s: %v, error %v", cookie, key, err)
	}
	if derived = len(k.derived) > before; derived && machine != "" {
		first := (*d.sealed.Load())[0]
		poll(k.t, "the key is in the folder", func() bool { return strings.HasPrefix(k.file(), first+"\n") })
	}
	return derived
}

func (k *keyring) file() string {
	b, _ := os.ReadFile(filepath.Join(k.path, "cookie.key"))
	return string(b)
}

// The key of a cookie is derived once. It is again where the cookie or the machine is another
// one, and where what was kept is damaged.
func TestTheKeyOfACookieIsDerivedOnce(t *testing.T) {
	k := &keyring{t: t, path: filepath.Join(t.TempDir(), "data")}
	for _, c := range []struct {
		machine, cookie string
		derived         bool
	}{
		{"m", "a", true},
		{"m", "a", false},
		{"m", "b", true},
		{"m", "b", false},
		{"m", "a", false}, // it is changed back
		{"n", "a", true},  // the folder is a copy, on another machine
		{"n", "a", false},
	} {
		if derived := k.key(c.machine, c.cookie); derived != c.derived {
			t.Errorf("machine %s, cookie %s: derived %v; derived in all: %v", c.machine, c.cookie, derived, k.derived)
		}
	}
	if lines := strings.Count(k.file(), "\n"); lines != keptKeys {
		t.Errorf("%d keys are kept:\n%s", lines, k.file())
	}
	info, err := os.Stat(filepath.Join(k.path, "cookie.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("cookie.key: %v, %v", info.Mode(), err)
	}

	for _, content := range []string{"", "\n", "not base64\n", strings.ToLower(k.file()), k.file()[:20]} {
		if err := os.WriteFile(filepath.Join(k.path, "cookie.key"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if !k.key("n", "a") || k.key("n", "a") {
			t.Errorf("with %q in cookie.key, it was not derived once", content)
		}
	}
}

// A machine without an id keeps no key: everybody could try cookies on it.
func TestNoKeyIsKeptWithoutTheMachinesID(t *testing.T) {
	k := &keyring{t: t, path: filepath.Join(t.TempDir(), "data")}
	k.key("", "a")
	k.key("", "a")
	if !slices.Equal(k.derived, []string{"a", "a"}) || k.file() != "" {
		t.Errorf("derived %v, and cookie.key has %q", k.derived, k.file())
	}
}

// What cannot be derived is not kept.
func TestAnEmptyCookieHasNoKey(t *testing.T) {
	d, err := OpenDir(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.machine = "m"
	failed := errors.New("no key")
	d.derive = func(string) (*clusterport.Key, error) { return nil, failed }
	if _, err := d.Key(""); !errors.Is(err, failed) || len(*d.sealed.Load()) > 0 {
		t.Errorf("error %v, and kept is %q", err, *d.sealed.Load())
	}
}
