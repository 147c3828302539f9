package clusterport

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKeyOfCookie: all versions have to make the same key of a cookie.
func TestKeyOfCookie(t *testing.T) {
	key, err := derived()
	if err != nil {
		t.Fatal(err)
	}
	const want = "ce6794830272363e71c2129959a502ea1edb60d1fb86602fed79ead53396e2d0"
	if got := hex.EncodeToString(key.signer.Public().(ed25519.PublicKey)); got != want {
		t.Errorf("public key of the cookie %q is %s, want %s", "riak", got, want)
	}
}

// derived is made once, however often the test runs.
var derived = sync.OnceValues(func() (*Key, error) { return DeriveKey("riak") })

// TestValidityIsNotTheClocks: a certificate counts by a fixed date. This one
// has long expired by any clock.
func TestValidityIsNotTheClocks(t *testing.T) {
	cert, err := ourKey.certificate("a")
	if err != nil {
		t.Fatal(err)
	}
	template := *cert.Leaf
	template.NotBefore, template.NotAfter = validAt.Add(-time.Second), validAt.Add(time.Second)
	expired, err := sign(&template, ourKey.authority, cert.Leaf.PublicKey, ourKey.signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := ourKey.verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{expired}}); err != nil {
		t.Error(err)
	}
	if err := otherKey.verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{expired}}); !errors.Is(err, ErrWrongCookie) {
		t.Errorf("by another key: %v, want ErrWrongCookie", err)
	}
}

func TestEmptyCookie(t *testing.T) {
	if _, err := DeriveKey(""); err == nil || !strings.Contains(err.Error(), "distributed_cookie") {
		t.Errorf("error is %v, want one that names distributed_cookie", err)
	}
}

// TestSealedKey: what was sealed opens as the same key with the same cookie and machine, and
// with no other; nor does it with a bit changed.
func TestSealedKey(t *testing.T) {
	sealed, err := ourKey.Seal("cookie", "machine")
	if err != nil {
		t.Fatal(err)
	}
	k, err := OpenKey(sealed, "cookie", "machine")
	if err != nil || !k.signer.Equal(ourKey.signer) {
		t.Fatalf("opened as %x, error %v", k.signer, err)
	}
	if bytes.Contains(sealed, ourKey.signer.Seed()[:4]) {
		t.Error("the key can be read in what is sealed")
	}
	again, err := ourKey.Seal("cookie", "machine")
	if err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealed twice it is the same, error %v", err)
	}
	for _, wrong := range [][2]string{{"cookie2", "machine"}, {"", "machine"}, {"cookie", "machine2"}, {"cookie", ""}, {"cookiemachine", ""}} {
		if _, err := OpenKey(sealed, wrong[0], wrong[1]); err == nil {
			t.Errorf("it opens with the cookie %q and the machine %q", wrong[0], wrong[1])
		}
	}
	for i := range 8 * len(sealed) {
		b := bytes.Clone(sealed)
		b[i/8] ^= 1 << (i % 8)
		if _, err := OpenKey(b, "cookie", "machine"); err == nil {
			t.Errorf("it opens with bit %d changed", i)
		}
	}
	for n := range sealed {
		if _, err := OpenKey(sealed[:n], "cookie", "machine"); err == nil {
			t.Errorf("%d bytes of it open", n)
		}
	}
}

// TestSealedKeyOpensForGood: these bytes are on disks.
func TestSealedKeyOpensForGood(t *testing.T) {
	sealed, err := hex.DecodeString("000102030405060708090a0b27fad49ca0d7fb5512b773b549aa13927aa3a7543724e6a78a21cb0102d42a9d21ca783908787b9c732fc1286c57db72")
	if err != nil {
		t.Fatal(err)
	}
	k, err := OpenKey(sealed, "cookie", "0123456789abcdef0123456789abcdef")
	if err != nil || !k.signer.Equal(ourKey.signer) {
		t.Errorf("error %v", err)
	}
}

// TestKeyStaysSecret: a configuration may get printed.
func TestKeyStaysSecret(t *testing.T) {
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		text := fmt.Sprintf(format, ourKey)
		for _, secret := range []string{
			hex.EncodeToString(ourKey.signer[:8]),
			strings.Trim(fmt.Sprint(ourKey.signer[:8]), "[]"),
			string(ourKey.signer[:8]),
		} {
			if strings.Contains(strings.ToLower(text), secret) {
				t.Errorf("%s shows the key", format)
			}
		}
	}
}
