package clusterport

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"runtime/debug"
	"time"

	"golang.org/x/crypto/argon2"
)

// How a cookie becomes a key. Nodes that differ in this do not know each
// other, so it is decided once.
const (
	keySalt = "leader-latch cluster key 1"

	// A guess at the cookie costs what a node's first connection costs: passes
	// over so many KiB, about 0.2 s on one core, which graphics cards do hardly
	// faster (Argon2id; RFC 9106, section 4, with one lane).
	keyPasses = 3
	keyMemory = 64 << 10
)

// Validity is the same for all certificates and as wide as X.509 can say: a
// machine whose clock is wrong must not lose its cluster. It is checked against
// validAt, never against the clock.
var (
	validFrom  = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	validUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	validAt    = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Key is what a cookie stands for: the key of an authority that signs the
// certificates of nodes. It does not show itself when printed.
type Key struct {
	signer    ed25519.PrivateKey
	authority *x509.Certificate
	roots     *x509.CertPool // those whose certificates are accepted
}

// Accepting gives a key by which a node proves itself as by k, and which also
// accepts nodes that prove themselves by another one: so the nodes of a cluster
// go from one to another, one after the other.
func (k *Key) Accepting(other *Key) *Key {
	both := *k
	both.roots = k.roots.Clone()
	both.roots.AddCert(other.authority)
	return &both
}

// DeriveKey makes the key of a cookie, always the same one of the same cookie.
// It takes about 0.2 s and, for that time, 64 MiB, so that guessing takes long.
func DeriveKey(cookie string) (*Key, error) {
	if cookie == "" {
		return nil, errors.New("distributed_cookie is empty; set it to the same secret on all nodes")
	}
	seed := argon2.IDKey([]byte(cookie), []byte(keySalt), keyPasses, keyMemory, 1, ed25519.SeedSize)
	debug.FreeOSMemory() // nothing else here needs as much, ever
	return KeyFromSeed([ed25519.SeedSize]byte(seed))
}

// KeyFromSeed makes a key of 32 bytes that cannot be guessed, at once.
func KeyFromSeed(seed [ed25519.SeedSize]byte) (*Key, error) {
	signer := ed25519.NewKeyFromSeed(seed[:])
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "leader-latch cluster"},
		NotBefore:             validFrom,
		NotAfter:              validUntil,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	authority, err := sign(template, template, signer.Public(), signer)
	if err != nil {
		return nil, err
	}
	k := &Key{signer: signer, authority: authority, roots: x509.NewCertPool()}
	k.roots.AddCert(authority)
	return k, nil
}

// sealedFor keeps apart what else may be made of a cookie. What is sealed with another text
// does not open.
const sealedFor = "leader-latch cookie.key 1"

// Seal gives the key so that it can be kept: [OpenKey] opens it with the same cookie and the
// same id of a machine, and with nothing else. Without the id nobody can try cookies on it.
// With it a guess takes microseconds, not what [DeriveKey] takes.
func (k *Key) Seal(cookie, machine string) ([]byte, error) {
	seal, err := sealOf(cookie, machine)
	if err != nil {
		return nil, fmt.Errorf("seal the cluster key: %w", err)
	}
	return seal.Seal(nil, nil, k.signer.Seed(), nil), nil
}

// OpenKey gives a key that was sealed, at once. An error says that it was sealed with another
// cookie, or on another machine, or is not what was sealed.
func OpenKey(sealed []byte, cookie, machine string) (*Key, error) {
	seal, err := sealOf(cookie, machine)
	if err != nil {
		return nil, err
	}
	seed, err := seal.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("a key of %d bytes", len(seed))
	}
	return KeyFromSeed([ed25519.SeedSize]byte(seed))
}

func sealOf(cookie, machine string) (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, []byte(cookie), []byte(machine), sealedFor, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Format implements [fmt.Formatter], for all verbs alike.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, "(cluster key)") }

// certificate makes a certificate with a key of its own for a node.
func (k *Key) certificate(node string) (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a key: %w", err)
	}
	leaf, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: node},
		NotBefore:   validFrom,
		NotAfter:    validUntil,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, k.authority, public, k.signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: private, Leaf: leaf}, nil
}

// verify accepts a connection whose other side has a certificate that the key accepts.
func (k *Key) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("%w: no certificate", ErrWrongCookie)
	}
	return k.accepts(cs.PeerCertificates[0])
}

func (k *Key) accepts(cert *x509.Certificate) error {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:       k.roots,
		CurrentTime: validAt,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return ErrWrongCookie
	}
	return nil
}

// certified is the node that the other side's certificate names.
func certified(cs tls.ConnectionState) string { return cs.PeerCertificates[0].Subject.CommonName }

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}
