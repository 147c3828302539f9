package clusterport

import (
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
