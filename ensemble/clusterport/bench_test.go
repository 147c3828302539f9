package clusterport

import (
	"io"
	"net"
	"testing"
)

func BenchmarkDeriveKey(b *testing.B) {
	for b.Loop() {
		if _, err := DeriveKey("riak"); err != nil {
			b.Fatal(err)
		}
	}
}

// What a node pays for a new connection, both ends of it.
func BenchmarkHandshake(b *testing.B) {
	x, y := start(b, "x"), start(b, "y")
	for b.Loop() {
		c, _, err := x.Dial(b.Context(), Admin, y.addr, "y")
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// A frame of 512 bytes, there and back.
func BenchmarkRoundTrip(b *testing.B) {
	frame := make([]byte, 512)
	b.Run("frames", func(b *testing.B) {
		near, far := framers(b)
		go func() {
			for {
				f, err := far.Read()
				if err != nil || far.Write(f) != nil {
					return
				}
			}
		}()
		for b.Loop() {
			if err := near.Write(frame); err != nil {
				b.Fatal(err)
			}
			if _, err := near.Read(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain TCP", func(b *testing.B) {
		l := listen(b)
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				io.Copy(c, struct{ io.Reader }{c}) // without splice
				c.Close()
			}
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		for b.Loop() {
			c.Write(frame)
			if _, err := io.ReadFull(c, frame); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Frames of 64 KiB, one way.
func BenchmarkStream(b *testing.B) {
	near, far := framers(b)
	frame := make([]byte, 64<<10)
	b.SetBytes(int64(len(frame)))
	go func() {
		for near.Write(frame) == nil {
		}
	}()
	for b.Loop() {
		if _, err := far.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
