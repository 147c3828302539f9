#!/usr/bin/env bash
# net/textproto and bufio of Go 1.26 (shown with the toolchain at hand), on a connection
# that brings half a line, as the first packet of two.
#
# Seen: textproto.Reader.ReadLine, as bufio.Reader.ReadLine below it, drops an error if it
# has a part of a line. So a read deadline that ends in the middle of "LEADER worker-12"
# gives "LEADER worker-1" and no error, and the next call gives "2" and no error: the
# caller never learns that time was up, nor that these were one line. A reset in the
# middle of a line gives "LEADER worker-1" and no error, and the next call EOF: the reset
# has become an orderly end.
# bufio.Scanner gives the same half as its last line, true from Scan and only then an
# error. bufio.Reader.ReadString tells, by its error, that the line has no end.
#
# Expected: a half line with the error that cut it; that the end of a file ends a
# line is the custom of text files, that a deadline or a reset does is not.
#
# For a user of leader election: a client in Go that reads lines by textproto or Scanner
# takes worker-1 for the leader while worker-12 is. The package for line protocols is the
# one that cannot tell; ReadString, or ReadBytes, can.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
cat >go.mod <<'EOF'
module halflines

go 1.26
EOF
cat >main.go <<'EOF'
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"syscall"
	"time"
)

var changed bool

func want(what, got, before string) {
	fmt.Printf("%s: %s\n", what, got)
	if got != before {
		fmt.Printf("  changed: it was %s\n", before)
		changed = true
	}
}

func name(err error) string {
	switch {
	case err == nil:
		return "no error"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "deadline"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case err == io.EOF:
		return "EOF"
	}
	return err.Error()
}

// dial connects to a server that says half a line. rest has it go on with the other half,
// reset has it reset the connection.
func dial() (client net.Conn, rest, reset func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		panic(err)
	}
	server, err := listener.Accept()
	if err != nil {
		panic(err)
	}
	io.WriteString(server, "LEADER worker-1")
	rest = func() { io.WriteString(server, "2\n") }
	reset = func() { server.(*net.TCPConn).SetLinger(0); server.Close() }
	return client, rest, reset
}

func main() {
	soon := func() time.Time { return time.Now().Add(500 * time.Millisecond) }
	far := func() time.Time { return time.Now().Add(20 * time.Second) }

	// One reader, a deadline between the halves, then the other half.
	twice := func(what, before string, reader func(net.Conn) func() (string, error)) {
		client, rest, _ := dial()
		read := reader(client)
		client.SetReadDeadline(soon())
		first, err := read()
		rest()
		client.SetReadDeadline(far())
		second, err2 := read()
		want(what, fmt.Sprintf("%q, %s, then %q, %s", first, name(err), second, name(err2)), before)
	}
	line := func(c net.Conn) func() (string, error) { return textproto.NewReader(bufio.NewReader(c)).ReadLine }
	scan := func(c net.Conn) func() (string, error) {
		s := bufio.NewScanner(c)
		return func() (string, error) {
			if s.Scan() {
				return s.Text(), nil // as in the usual loop, which asks for the error at its end
			}
			return "", s.Err()
		}
	}
	str := func(c net.Conn) func() (string, error) {
		b := bufio.NewReader(c)
		return func() (string, error) { return b.ReadString('\n') }
	}
	twice("textproto ReadLine, a deadline ", `"LEADER worker-1", no error, then "2", no error`, line)
	twice("bufio Scanner, a deadline      ", `"LEADER worker-1", no error, then "", deadline`, scan)
	twice("bufio ReadString, a deadline   ", `"LEADER worker-1", deadline, then "2\n", no error`, str)

	once := func(what, before string, reader func(net.Conn) func() (string, error)) {
		client, _, reset := dial()
		go func() { time.Sleep(300 * time.Millisecond); reset() }()
		client.SetReadDeadline(far())
		read := reader(client)
		first, err := read()
		second, err2 := read()
		want(what, fmt.Sprintf("%q, %s, then %q, %s", first, name(err), second, name(err2)), before)
	}
	once("textproto ReadLine, a reset    ", `"LEADER worker-1", no error, then "", EOF`, line)
	once("bufio Scanner, a reset         ", `"LEADER worker-1", no error, then "", reset`, scan)
	once("bufio ReadString, a reset      ", `"LEADER worker-1", reset, then "", EOF`, str)
	if changed {
		os.Exit(1)
	}
}
EOF
go version
go build -o half .
timeout 60 ./half
