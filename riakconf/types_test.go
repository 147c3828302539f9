package riakconf

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDatatypes compares what becomes of the inputs in datatypes.tsv with its last
// column: "=" as Riak 2.1 (columns 3 and 4), "free", "error", "ok" and a value, or
// "none" where no key here has the type.
func TestDatatypes(t *testing.T) {
	rows := table(t, testdata+"/datatypes.tsv")
	passed, none := 0, 0
	for _, row := range rows {
		if row[6] == "none" {
			none++
		} else if t.Run(row[0]+row[1], func(t *testing.T) { testDatatype(t, row) }) {
			passed++
		}
	}
	t.Logf("%d of %d", passed, len(rows)-none)
	if len(rows) < 243 || none > 19 {
		t.Errorf("%d rows, %d of them of types that no key has; want 243 and 19", len(rows), none)
	}
}

func testDatatype(t *testing.T, row []string) {
	var input string
	if err := json.Unmarshal([]byte(row[1]), &input); err != nil {
		t.Fatal(err)
	}
	outcome, want, _ := strings.Cut(row[6], " ")
	if outcome == "=" {
		outcome, want = row[2], row[3]
	}
	got, err := readDatatype(row[0], input)
	switch outcome {
	case "free":
	case "error":
		if err == nil {
			t.Errorf("%q is %s, want an error", input, got)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("the error %q is not one line", err)
		}
	case "ok":
		if err != nil {
			t.Errorf("%q: %v, want %s", input, err, want)
		} else if !sameValue(got, want) {
			t.Errorf("%q is %s, want %s", input, got, want)
		}
	default:
		t.Fatalf("what is %q?", outcome)
	}
}

// readDatatype reads input as one of Riak's types, and writes the value as
// the table does.
func readDatatype(datatype, input string) (string, error) {
	name, args, _ := strings.Cut(strings.TrimSuffix(datatype, ")"), "(")
	words := strings.Split(args, ",")
	switch name {
	case "ip":
		a, err := ParseAddress(input)
		return fmt.Sprintf("host=%s port=%d", a.Host, a.Port), err
	case "flag":
		if args == "" {
			words = []string{"on", "off"}
		}
		v, err := parseFlag(input, words[0], words[1])
		return strconv.FormatBool(v), err
	case "enum":
		if args == "levels" {
			words = levels
		}
		return parseWord(input, words)
	case "integer":
		v, err := parseInteger(input)
		return fmt.Sprint(v), err
	case "bytesize":
		v, err := parseSize(input)
		return fmt.Sprint(v), err
	case "duration":
		for _, u := range durationUnits {
			if u.name == args {
				v, err := parseDuration(input, u.length)
				return fmt.Sprint(v), err
			}
		}
	case "atom":
		return input, nil
	case "string":
		v, err := textType.parse(input)
		return strconv.Quote(v.(string)), err
	case "file":
		v, err := fileType.parse(input)
		return strconv.Quote(v.(string)), err
	case "directory":
		v, err := folderType.parse(input)
		return strconv.Quote(v.(string)), err
	}
	return "", fmt.Errorf("no such type: %s", datatype)
}

// sameValue compares numbers as numbers: the table has 1536.0 where a whole
// number is meant. It writes an atom in quotes if it needs them.
func sameValue(got, want string) bool {
	x, errX := strconv.ParseFloat(got, 64)
	y, errY := strconv.ParseFloat(want, 64)
	if errX == nil && errY == nil {
		return x == y
	}
	return got == want || "'"+got+"'" == want
}

func TestParseTypes(t *testing.T) {
	tests := []struct {
		t    Type
		in   string
		want any // an error if it is a string and the type is none of the text types
	}{
		{flagType, "on", true},
		{flagType, "yes", `"yes" is neither on nor off`},
		{oneOf("quick", "normal", "calm"), "Calm", `"Calm" is not possible here; write quick, normal or calm`},
		{integer(1, 9), "+3", int64(3)},
		{integer(1, 9), "0", "0 is below 1"},
		{integer(1, 9), "99999999999999999999", "99999999999999999999 is above 9"},
		{integer(1, 9), strings.Repeat("1", 101), "a number of more than 100 characters"},
		{integer(1, 9), "3.0", `"3.0" is not a whole number; write digits only, for example 64`},
		{Type{kind: kindKeep}, "current", int64(0)},
		{Type{kind: kindKeep}, "7", int64(7)},
		{sizeType, "1.3KB", int64(1332)},
		{sizeType, "-1KB", int64(-1024)},
		{numberType, "-9223372036854775808", int64(math.MinInt64)},
		{numberType, "9223372036854775808", "9223372036854775808 is above 9223372036854775807"},
		{sizeType, "9999999999GB", "9999999999GB is too large"},
		{duration(time.Millisecond), "1.0001ms", 2 * time.Millisecond},
		{duration(time.Second), "1.0001s", 2 * time.Second},
		{duration(time.Millisecond), "1.001s", 1001 * time.Millisecond}, // not 1002, as with floating point
		{duration(time.Millisecond), "100000w", "100000w is longer than 292 years"},
		{duration(time.Millisecond), "01s", `"01s" is not a duration; write numbers with f, w, d, h, m, s or ms after them and no blanks, for example 1m30s; zero is not possible`},
		{addressType, "127.0.0.1:5323", Address{"127.0.0.1", 5323}},
		{addressType, "127.0.0.1:99999", "port 99999 is above 65535"},
		{addressType, "127.0.0.1", `"127.0.0.1" has no port; write host:port, for example 127.0.0.1:5323`},
		{addressType, "127.0.0.1:x", `"x" is not a port; write host:port, for example 127.0.0.1:5323`},
		{addressType, ":5323", "no host; write an address or a host name in front of the colon"},
		{addressType, "[127.0.0.1]:5323", `"[127.0.0.1]" is neither an IP address nor a host name`},
		{addressType, "[::1:5323", `"[::1" is neither an IP address nor a host name`},
		{addressType, "a..b:1", `"a..b" is neither an IP address nor a host name`},
		{addressType, "fe80::1%e th:1", `"fe80::1%e th" is neither an IP address nor a host name`},
	}
	for _, tt := range tests {
		got, err := tt.t.parse(tt.in)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q is %v, want %v", tt.t, tt.in, got, tt.want)
		}
	}
}

func TestParseNode(t *testing.T) {
	tests := []struct {
		in   string
		want Node
		err  string
	}{
		{in: "riak@192.0.2.1", want: Node{"riak@192.0.2.1", "192.0.2.1", 0}},
		{in: "riak@192.0.2.1:5400", want: Node{"riak@192.0.2.1", "192.0.2.1", 5400}},
		{in: "riak@db_1.example.com", want: Node{"riak@db_1.example.com", "db_1.example.com", 0}},
		{in: "riak@db1:5400", want: Node{"riak@db1", "db1", 5400}},
		{in: "riak@::1", want: Node{"riak@::1", "::1", 0}},
		{in: "riak@[::1]", want: Node{"riak@::1", "::1", 0}},
		{in: "riak@[::1]:5400", want: Node{"riak@::1", "::1", 5400}},
		{in: "riak@2001:0DB8:0:0::1", want: Node{"riak@2001:db8::1", "2001:db8::1", 0}},
		{in: "riak", err: "has no @"},
		{in: "@192.0.2.1", err: "no usable name"},
		{in: "my riak@192.0.2.1", err: "no usable name"},
		{in: "riak@", err: "has no host"},
		{in: "riak@a@b", err: "neither an IP address nor a host name"},
		{in: "riak@{{ip}}", err: "neither an IP address nor a host name"},
		{in: "riak@db1:port", err: "is not a port"},
		{in: "riak@db1:0", err: "port 0"},
		{in: "riak@db1:65536", err: "above 65535"},
	}
	for _, tt := range tests {
		got, err := ParseNode(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want one with %q", tt.in, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%q is %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
	}
}

func TestLoopbackIsLiteral(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.255.0.9": true, "::1": true, "localhost": true,
		"Localhost": false, "localhost.localdomain": false, "::ffff:127.0.0.1": false,
		"0.0.0.0": false, "::": false, "128.0.0.1": false, "db1": false, "": false,
	} {
		if got := Loopback(host); got != want {
			t.Errorf("Loopback(%q) = %v", host, got)
		}
	}
}

func TestOverlap(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{"127.0.0.1:1", "127.0.0.1:2", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"127.0.0.1:1", "127.0.0.2:1", false},
		{"0.0.0.0:1", "127.0.0.2:1", true},
		{"0.0.0.0:1", "[::1]:1", false},
		{"[::]:1", "[::1]:1", true},
		{"[::]:1", "0.0.0.0:1", false},
		{"db1:1", "db1:1", true},
		{"db1:1", "127.0.0.1:1", false},
	}
	for _, tt := range tests {
		a, errA := ParseAddress(tt.a)
		b, errB := ParseAddress(tt.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.overlap(b) != tt.want || b.overlap(a) != tt.want {
			t.Errorf("%s and %s: overlap %v, %v", tt.a, tt.b, a.overlap(b), b.overlap(a))
		}
	}
}

// FuzzTypes feeds text to every type: no value is out of the range that the
// type promises.
func FuzzTypes(f *testing.F) {
	for _, seed := range []string{"on", "1h30m", ".5s", "64KB", "-1", "[::1]:5323", "fe80::1%eth0:1", "riak@[::1]:5400", "a@b, c@d", "current", "10%", "1.0e3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, k := range schema {
			v, err := k.Type.parse(s)
			if err != nil {
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: the error %q is not one line", k.Type, err)
				}
				continue
			}
			switch v := v.(type) {
			case int64:
				if k.Type.kind == kindInteger && (v < k.Type.min || v > k.Type.max) || k.Type.kind == kindKeep && v < 0 {
					t.Errorf("%s: %q is %d", k.Type, s, v)
				}
			case time.Duration:
				if v <= 0 {
					t.Errorf("%s: %q is %v", k.Type, s, v)
				}
			case Address:
				again, err := ParseAddress(v.String())
				if err != nil || again != v {
					t.Errorf("%q is %v, and that is %v, %v", s, v, again, err)
				}
			}
		}
	})
}
