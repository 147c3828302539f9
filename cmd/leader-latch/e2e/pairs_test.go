package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// pairs are figures of an old and a new program, each pair measured one right after the
// other, so that what disturbs the machine for longer than that disturbs both.
type pairs struct {
	rate     bool // more is better, as of elections per second
	old, new []float64
}

func (p *pairs) add(old, new float64) {
	p.old, p.new = append(p.old, old), append(p.new, new)
}

// ratios gives for each pair how much worse the new program was: new/old, or old/new of
// a rate. Above 1 is worse.
func (p *pairs) ratios() (all []float64) {
	for i := range p.old {
		if p.rate {
			all = append(all, p.old[i]/p.new[i])
		} else {
			all = append(all, p.new[i]/p.old[i])
		}
	}
	return all
}

func (p *pairs) String() string {
	ratios := p.ratios()
	low, high := interval(ratios)
	return fmt.Sprintf("%.4g | %.4g | %.3f | %.3f to %.3f | %d", median(p.old), median(p.new), median(ratios), low, high, len(ratios))
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// interval gives the ends of the 95 % confidence interval of the median of what these
// values are samples of: the k-th smallest and the k-th largest one, with the largest k
// for which a coin thrown as often shows heads less than k times with a probability of
// at most 2.5 %. It supposes nothing of how the values are distributed. (W. J. Conover,
// Practical Nonparametric Statistics, 3rd edition, 3.2; H. A. David and H. N. Nagaraja,
// Order Statistics, 3rd edition, 7.1.) Fewer than six values bound nothing.
func interval(values []float64) (low, high float64) {
	s := slices.Sorted(slices.Values(values))
	k, heads, atMost := 0, math.Pow(0.5, float64(len(s))), 0.0
	for atMost += heads; atMost <= 0.025; atMost += heads {
		heads *= float64(len(s)-k) / float64(k+1)
		k++
	}
	if k == 0 {
		return 0, math.Inf(1)
	}
	return s[k-1], s[len(s)-k]
}

// How much worse than the old program the new one may be.
const (
	tolerated = 1.03 // the median
	bounded   = 1.10 // where the interval has to end if the median is above that
)

type verdict string

const (
	notWorse  verdict = "not worse"
	worse     verdict = "worse"
	undecided verdict = "undecided"
)

// verdictOf judges ratios. They are worse if all of the interval is above what the median
// may be.
func verdictOf(ratios []float64) verdict {
	low, high := interval(ratios)
	switch {
	case median(ratios) <= tolerated, low <= 1 && 1 <= high && high < bounded:
		return notWorse
	case low > tolerated:
		return worse
	}
	return undecided
}

func TestTheMedianIsTheMiddleOrBetweenTheTwo(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{7}, 7}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 9, 2}, 3}} {
		if got := median(c.values); got != c.want {
			t.Errorf("of %v: %v, want %v", c.values, got, c.want)
		}
	}
}

func TestARatioAboveOneIsWorse(t *testing.T) {
	slower, fewer := pairs{}, pairs{rate: true}
	slower.add(10, 20) // takes twice as long
	fewer.add(20, 10)  // does half as much
	for what, p := range map[string]pairs{"a time": slower, "a rate": fewer} {
		if got := p.ratios(); !slices.Equal(got, []float64{2}) {
			t.Errorf("of %s: %v, want 2", what, got)
		}
	}
}

// The ranks are those of the published tables of the sign test at 5 %, two-sided.
func TestTheIntervalEndsAtTheRanksOfTheSignTest(t *testing.T) {
	for n, k := range map[int]int{6: 1, 8: 1, 9: 2, 12: 3, 20: 6, 30: 10, 40: 14, 50: 18, 60: 22} {
		var values []float64
		for i := range n {
			values = append(values, float64(i+1))
		}
		rand.Shuffle(n, func(i, j int) { values[i], values[j] = values[j], values[i] })
		if low, high := interval(values); low != float64(k) || high != float64(n+1-k) {
			t.Errorf("of %d values: from the %v. to the %v., want the %d. to the %d.", n, low, high, k, n+1-k)
		}
	}
	if low, high := interval([]float64{1, 1, 1, 1, 1}); low > 0 || !math.IsInf(high, 1) {
		t.Errorf("five values bound the median by %v and %v", low, high)
	}
}

func TestTheIntervalHoldsTheMedianNineteenTimesOfTwenty(t *testing.T) {
	const samples = 4000
	random := rand.New(rand.NewPCG(1, 2))
	held := 0
	for range samples {
		var values []float64
		for range 20 {
			values = append(values, math.Exp(random.NormFloat64())) // skew; the median is 1
		}
		if low, high := interval(values); low <= 1 && 1 <= high {
			held++
		}
	}
	// For 20 values the interval is one of 95.86 %; five deviations of the count are 1.6 %.
	if share := float64(held) / samples; share < 0.9586-0.016 || share > 0.9586+0.016 {
		t.Errorf("it holds the median in %.2f %% of the samples", 100*share)
	}
}

func TestVerdicts(t *testing.T) {
	evenly := func(from, to float64) (all []float64) {
		for i := range 20 {
			all = append(all, from+(to-from)*float64(i)/19)
		}
		return all
	}
	for _, c := range []struct {
		what   string
		ratios []float64
		want   verdict
	}{
		{"all the same", evenly(1, 1), notWorse},
		{"better", evenly(0.5, 0.7), notWorse},
		{"a median of 1.03, however wide", evenly(0.06, 2), notWorse},
		{"a median of 1.04, the interval holds 1 and ends below 1.10", evenly(0.92, 1.16), notWorse},
		{"a median of 1.05, the interval holds 1 and ends above 1.10", evenly(0.8, 1.3), undecided},
		{"a median of 1.04, the interval is above 1 and not all above 1.03", evenly(1.01, 1.07), undecided},
		{"the interval is above 1.03", evenly(1.03, 1.2), worse},
		{"five that are twice as bad", []float64{2, 2, 2, 2, 2}, undecided},
	} {
		if got := verdictOf(c.ratios); got != c.want {
			low, high := interval(c.ratios)
			t.Errorf("%s: %s, want %s (median %.3f, %.3f to %.3f)", c.what, got, c.want, median(c.ratios), low, high)
		}
	}
}
