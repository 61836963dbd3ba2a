//go:build linux

package natmatrix

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// The aims of CLD-REQ-003, in seconds.
const (
	relayAim  = 2.0
	directAim = 3.0
)

// WriteTable prints results for a person, in Markdown.
func WriteTable(w io.Writer, results []Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(tw, "| A\t| B\t| expected\t| path\t| first path\t| direct\t| 1 MiB echo\t| NAT seen by A, B\t|")
	fmt.Fprintln(tw, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, r := range results {
		direct := "–"
		if d := max(r.Direct[0], r.Direct[1]); d > 0 {
			direct = seconds(d)
		}
		note := ""
		if r.Err != nil {
			note = " **" + r.Err.Error() + "**"
		}
		fmt.Fprintf(tw, "| %s\t| %s\t| %s\t| %s%s\t| %s\t| %s\t| %s\t| %s, %s\t|\n", r.Pair.A.Name, r.Pair.B.Name,
			Expect(r.Pair.A, r.Pair.B), r.Path, note, seconds(max(r.First[0], r.First[1])), direct, seconds(r.Echo), r.NAT[0], r.NAT[1])
	}
	return tw.Flush()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// Figure is one line of a file of measurements.
type Figure struct {
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Baseline float64 `json:"baseline"` // the aim, or what it is compared with
	Ratio    float64 `json:"ratio"`
}

// Figures sums results up: how long nearly all pairs took to the first path,
// and, where one is possible, to the direct one.
func Figures(results []Result) []Figure {
	var first, direct []float64
	for _, r := range results {
		for i := range 2 {
			if r.First[i] > 0 {
				first = append(first, r.First[i].Seconds())
			}
			if r.Direct[i] > 0 && Expect(r.Pair.A, r.Pair.B) == api.PathDirect {
				direct = append(direct, r.Direct[i].Seconds())
			}
		}
	}
	var out []Figure
	for _, f := range []struct {
		name    string
		samples []float64
		aim     float64
	}{{"relay_ready_p95_s", first, relayAim}, {"direct_p95_s", direct, directAim}} {
		if len(f.samples) > 0 {
			v := percentile(f.samples, 95)
			out = append(out, Figure{Name: f.name, Value: v, Unit: "s", Baseline: f.aim, Ratio: v / f.aim})
		}
	}
	return out
}

// percentile is the smallest sample that p per cent of all do not exceed.
func percentile(samples []float64, p int) float64 {
	s := slices.Sorted(slices.Values(samples))
	return s[(len(s)*p+99)/100-1]
}

// WriteFigures puts figures into a file of JSON lines, in place of earlier ones
// of the same names. The file's other lines stay.
func WriteFigures(path string, figures []Figure) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write figures: %w", err)
	}
	var out strings.Builder
	for sc := bufio.NewScanner(strings.NewReader(string(old))); sc.Scan(); {
		var f Figure
		if err := json.Unmarshal(sc.Bytes(), &f); err == nil && slices.ContainsFunc(figures, func(n Figure) bool { return n.Name == f.Name }) {
			continue
		}
		fmt.Fprintln(&out, sc.Text())
	}
	enc := json.NewEncoder(&out)
	for _, f := range figures {
		if err := enc.Encode(f); err != nil {
			return fmt.Errorf("write figures: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}
