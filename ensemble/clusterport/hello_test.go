package clusterport

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestMessageBytes: the format of the handshake stays.
func TestMessageBytes(t *testing.T) {
	h := Hello{Cluster: "c1", Node: "a", Name: "riak@a", Address: "a:5324", Formats: Formats{1, 3, 2}}
	lives := h
	lives.Life = "one"
	for _, c := range []struct {
		m    message
		want string
	}{
		{message{Hello: lives}, `{"version":1,"cluster":"c1","node":"a","name":"riak@a","address":"a:5324","formats":{"oldest":1,"newest":3,"writes":2},"life":"one"}`},
		{message{Hello: h}, `{"version":1,"cluster":"c1","node":"a","name":"riak@a","address":"a:5324","formats":{"oldest":1,"newest":3,"writes":2}}`},
		{message{Hello: h, Refusal: refuse(ErrRemoved)}, `{"version":1,"cluster":"c1","node":"a","name":"riak@a","address":"a:5324","formats":{"oldest":1,"newest":3,"writes":2},` +
			`"refusal":{"code":"removed","reason":"removed from the cluster"}}`},
	} {
		got := string(encoded(t, c.m))
		if want := string(raw(c.want)); got != want {
			t.Errorf("encoded as %q, want %q", got, want)
		}
		m, err := readMessage(strings.NewReader(got))
		if err != nil || m.Hello != c.m.Hello || (m.Refusal == nil) != (c.m.Refusal == nil) {
			t.Errorf("decoded as %+v, error %v, want %+v", m, err, c.m)
		}
	}
}

// TestLaterVersionsAreUnderstood: fields may be added.
func TestLaterVersionsAreUnderstood(t *testing.T) {
	m, err := readMessage(bytes.NewReader(raw(
		`{"version":7,"mood":{"of":["the","day"]},"node":"a","formats":{"oldest":1,"newest":9,"writes":2,"likes":4},"refusal":{"code":"removed","since":"today"}}`)))
	if err != nil || m.Node != "a" || m.Formats != (Formats{1, 9, 2}) || m.Refusal == nil || m.Refusal.Code != "removed" {
		t.Errorf("decoded as %+v, error %v", m, err)
	}
}

func TestBadHellos(t *testing.T) {
	good := Hello{Cluster: "c1", Node: "a", Name: "riak@ä", Address: "a:5324", Formats: Formats{1, 3, 2}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Hello){
		"no node":              func(h *Hello) { h.Node = "" },
		"long node":            func(h *Hello) { h.Node = strings.Repeat("x", maxID+1) },
		"long cluster":         func(h *Hello) { h.Cluster = strings.Repeat("x", maxID+1) },
		"long life":            func(h *Hello) { h.Life = strings.Repeat("x", maxID+1) },
		"long name":            func(h *Hello) { h.Name = strings.Repeat("x", maxText+1) },
		"long address":         func(h *Hello) { h.Address = strings.Repeat("x", maxText+1) },
		"line end":             func(h *Hello) { h.Name = "riak\nriak" },
		"not UTF-8":            func(h *Hello) { h.Address = "\xff" },
		"writes an older one":  func(h *Hello) { h.Formats.Writes = 0 },
		"writes a newer one":   func(h *Hello) { h.Formats.Writes = 4 },
		"reads none":           func(h *Hello) { h.Formats = Formats{3, 2, 3} },
		"formats are negative": func(h *Hello) { h.Formats = Formats{-1, 1, -1} },
	} {
		bad := good
		spoil(&bad)
		if err := bad.check(); !errors.Is(err, ErrBadHello) {
			t.Errorf("%s: error is %v, want ErrBadHello", name, err)
		}
	}
}

// TestLargestMessageFits: whatever passes the checks can be sent.
func TestLargestMessageFits(t *testing.T) {
	id, text := strings.Repeat("<", maxID), strings.Repeat("<", maxText) // six bytes each in JSON
	m := message{
		Hello:   Hello{Cluster: id, Node: id, Life: id, Name: text, Address: text, Formats: Formats{1, 1 << 40, 1 << 40}},
		Refusal: refuse(errors.New(strings.Repeat("<", 2*maxReason))),
	}
	if _, err := readMessage(bytes.NewReader(encoded(t, m))); err != nil {
		t.Error(err)
	}
}

func TestFormatsAgree(t *testing.T) {
	for _, c := range []struct {
		a, b Formats
		want bool
	}{
		{Formats{1, 1, 1}, Formats{1, 1, 1}, true},
		{Formats{1, 2, 1}, Formats{1, 1, 1}, true}, // during an upgrade
		{Formats{1, 2, 2}, Formats{1, 1, 1}, false},
		{Formats{1, 2, 2}, Formats{1, 2, 1}, true},
		{Formats{2, 3, 3}, Formats{1, 2, 2}, false},
		{Formats{2, 3, 2}, Formats{1, 2, 1}, false},
		{Formats{2, 3, 2}, Formats{1, 2, 2}, true},
	} {
		for _, pair := range [][2]Formats{{c.a, c.b}, {c.b, c.a}} {
			err := agree(Hello{Node: "a", Formats: pair[0]}, Hello{Node: "b", Formats: pair[1]})
			if (err == nil) != c.want || err != nil && !errors.Is(err, ErrFormat) {
				t.Errorf("%v and %v: %v, want agreement %v", pair[0], pair[1], err, c.want)
			}
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add(encoded(f, message{Hello: hello("a")}))
	f.Add(encoded(f, message{Hello: hello("b"), Refusal: refuse(ErrFormat)}))
	f.Add([]byte{0xff, 0xff})
	f.Add(raw(`{"version":1,"node":"a","formats":{"oldest":1,"newest":1,"writes":1},"Node":"b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		m, err := readMessage(r)
		if err != nil {
			if !errors.Is(err, ErrBadHello) && err != io.EOF && err != io.ErrUnexpectedEOF {
				t.Errorf("error is %v", err)
			}
			return
		}
		if read := len(b) - r.Len(); read > 2+maxMessage {
			t.Errorf("%d bytes were read", read)
		}
		if err := m.Hello.check(); err != nil {
			t.Errorf("%+v was let through: %v", m.Hello, err)
		}
		if m.Refusal != nil { // goes to logs
			if e := m.Refusal.error(m.Hello, Admin); strings.ContainsAny(e.Error(), "\n\r\x1b") || len(e.Reason) > maxReason {
				t.Errorf("the refusal's text is %q", e)
			}
		}
		m.Refusal = nil
		again, err := readMessage(bytes.NewReader(encoded(t, m)))
		if err != nil || again.Hello != m.Hello {
			t.Errorf("%+v became %+v, error %v", m.Hello, again.Hello, err)
		}
	})
}
