//go:build bench

package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"leaderlatch/riakconf"
)

// TestMeasure prints a table of what SPEED.md promises of speed and size, measured with
// real nodes on this machine, which clients and nodes share: run it when the machine
// has nothing else to do. With -short it takes a tenth of everything, to try it out.
// SPEED.md says what the rows mean.
func TestMeasure(t *testing.T) {
	began := time.Now()
	row("what", "measured")
	row("---", "---")
	row("commit, Go", "%s, %s", describe("--dirty"), runtime.Version())
	printMachine(t)
	for _, s := range []struct {
		name    string
		measure func(t *testing.T)
	}{
		{"elect", measureElect},
		{"hand-over", measureHandOver},
		{"throughput", measureThroughput},
		{"client-killed", measureClientKilled},
		{"keyed", measureKeyed},
		{"observers", measureObservers},
		{"fan-out", measureFanOut},
		{"memory", measureMemory},
		{"storm", measureStorm},
		{"node-killed", measureNodeKilled},
		{"nodes", measureMoreNodes},
		{"disk", measureSlowDisk},
		{"distance", measureDistance},
		{"million", measureMillion},
		{"start", measureStart},
		{"restart", measureRestart},
		{"start-large", measureStartLarge},
	} {
		t.Run(s.name, s.measure)
	}
	row("one flush, at the end", "%v", flushes(t, fewer(4000)))
	row("load at the end; time taken", "%s; %v", loadAverages(t), time.Since(began).Round(time.Second))
}

// row prints one row of the table.
func row(what, format string, args ...any) {
	fmt.Printf("| %s | %s |\n", what, fmt.Sprintf(format, args...))
}

// printMachine prints what the figures depend on.
func printMachine(t *testing.T) {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		t.Fatal(err)
	}
	row("machine", "%d cores of %s, %s of memory, Linux %s", runtime.NumCPU(), procField("/proc/cpuinfo", "model name"),
		procField("/proc/meminfo", "MemTotal"), unix.ByteSliceToString(uname.Release[:]))
	row("load before (1, 5, 15 minutes)", "%s", loadAverages(t))
	row("open files allowed to each process", "%d", openFiles())
	row("one flush: 4 KiB appended, fdatasync", "%v", flushes(t, fewer(4000)))
}

// describe gives the name of what is checked out, or of a commit.
func describe(what string) string {
	args := []string{"describe", "--tags", "--always", "--abbrev=12", what}
	name, err := exec.Command("git", args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(name))
}

func loadAverages(t *testing.T) string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

// procField gives the first value of that name in a file of /proc.
func procField(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// fewer is how many of n to take: a tenth with -short.
func fewer(n int) int {
	if testing.Short() {
		return max(2, n/10)
	}
	return n
}

// affordable is n, or as many connections as the limit of open files leaves a process,
// and the words that say so.
func affordable(n int) (most int, limited string) {
	if most := openFiles() * 3 / 4; n > most {
		return most, fmt.Sprintf(" (of %d, by the limit of open files)", n)
	}
	return n, ""
}

func (l latencies) at(p float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return l[min(len(l)-1, int(p*float64(len(l))))]
}

func (l latencies) String() string {
	if len(l) <= 100 { // the 99th percentile is the longest
		return fmt.Sprintf("p50 %s, max %s ms (n=%d)", ms(l.at(0.5)), ms(l.at(1)), len(l))
	}
	return fmt.Sprintf("p50 %s, p99 %s, max %s ms (n=%d)", ms(l.at(0.5)), ms(l.at(0.99)), ms(l.at(1)), len(l))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

// spread is a figure that was measured several times.
type spread []float64

func (s spread) median() float64 { return median(s) }

func (s spread) String() string {
	return fmt.Sprintf("%.0f (%.0f to %.0f)", s.median(), slices.Min(s), slices.Max(s))
}

func flushes(t *testing.T, n int) (l latencies) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for range n {
		l = append(l, flush(t, f, block))
	}
	return l
}

// servers are processes whose use of the machine is measured.
type servers []int

func pidsOf(nodes []*member) (all servers) {
	for _, m := range nodes {
		all = append(all, m.cmd.Process.Pid)
	}
	return all
}

// cpu is the time that they have run, with that of the kernel for them.
func (s servers) cpu(t testing.TB) (sum time.Duration) {
	t.Helper()
	for _, pid := range s {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, ticks := range f[11:13] { // user, system; of 10 ms
			n, err := strconv.Atoi(ticks)
			if err != nil {
				t.Fatal(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// rest waits until the servers have had little to do for a while.
func (s servers) rest(t testing.TB) {
	t.Helper()
	const look = 200 * time.Millisecond
	for end := time.Now().Add(patience); ; {
		before := s.cpu(t)
		time.Sleep(look)
		if used := s.cpu(t) - before; used <= look/10 {
			return
		} else if time.Now().After(end) {
			t.Fatalf("the servers do not come to rest: %v of processors in %v", used, look)
		}
	}
}

func rssOf(nodes []*member) (sum int) {
	for _, m := range nodes {
		sum += m.rss()
	}
	return sum
}

// timed are nodes with the timing of that name.
func timed(t *testing.T, n int, timing string, lines ...string) []*member {
	t.Helper()
	return cluster(t, n, append([]string{"leader_latch.timing = " + timing}, lines...)...)
}

func addrsOf(nodes []*member) (all []string) {
	for _, m := range nodes {
		all = append(all, m.addr)
	}
	return all
}

// The processes of clients that only the measurements have.
func init() {
	outsiders["lead"] = beLeader
	outsiders["joins"] = beJoins
	outsiders["bare"] = beBareServer
}

// beLeader leads a group until it is killed.
func beLeader(in *bufio.Reader, args []string) error {
	c, err := call(args[0], "a")
	if err != nil {
		return err
	}
	if err := c.lead(args[1]); err != nil {
		return err
	}
	fmt.Println("ready")
	in.ReadString('\n')
	return nil
}

// beJoins takes the times in which clients that come one after the other lead groups
// of their own.
func beJoins(in *bufio.Reader, args []string) error {
	n := 0
	return takeTimes(in, func() (time.Duration, error) {
		n++
		began := time.Now()
		c, err := call(args[0], "a")
		if err != nil {
			return 0, err
		}
		defer c.Close()
		err = c.lead(fmt.Sprintf("join-%d-%d", os.Getpid(), n))
		return time.Since(began), err
	})
}

// beBareServer answers every JOIN at once, without deciding, keeping or copying
// anything: what is left is what Go and the kernel take for a connection.
func beBareServer(in *bufio.Reader, args []string) error {
	l, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				buf := make([]byte, 256)
				if n, err := nc.Read(buf); err != nil || n == 0 {
					return
				}
				if _, err := nc.Write([]byte("LEADER a\n")); err != nil {
					return
				}
				nc.Read(buf) // until it leaves
			}()
		}
	}()
	fmt.Println("ready")
	in.ReadString('\n')
	return nil
}

// goBenchmark runs benchmarks of a package of this module, and gives the metrics of
// each by its unit.
func goBenchmark(t *testing.T, pkg, pattern string, flags ...string) (results []benchmarkResult) {
	t.Helper()
	args := append([]string{"test", "-run", "^$", "-bench", pattern}, flags...)
	cmd := exec.Command("go", append(args, pkg)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(f[0], "Benchmark"), fmt.Sprint("-", runtime.GOMAXPROCS(0)))
		r := benchmarkResult{name: strings.NewReplacer("_", " ", "/", ": ").Replace(name), metrics: map[string]float64{}}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			r.metrics[f[i+1]] = v
		}
		results = append(results, r)
	}
	return results
}

type benchmarkResult struct {
	name    string
	metrics map[string]float64
}

// joinTimeoutOf is the time within which a node answers a JOIN.
func joinTimeoutOf(t *testing.T, m *member) time.Duration {
	conf, _, err := riakconf.Load(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	return conf.JoinTimeout
}

func (r benchmarkResult) String() string {
	var all []string
	for _, unit := range slices.Sorted(maps.Keys(r.metrics)) {
		all = append(all, fmt.Sprintf("%.5g %s", r.metrics[unit], unit))
	}
	return strings.Join(all, ", ")
}

func (m *member) lostSession() bool { return strings.Contains(m.logText(), "session lost") }
