package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cloudless-project/cloudless/api"
)

// none stands in a table where there is nothing to say.
const none = "-"

// age says how long ago t was, in one unit: 45s, 3m, 7h, 12d.
func age(now, t time.Time) string {
	if t.IsZero() {
		return none
	}
	return short(max(now.Sub(t), 0))
}

func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// size says how many bytes there are, to three digits: 512, 4Ki, 1.5Gi.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.5 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	text := fmt.Sprintf("%.1f", v)
	if v >= 99.95 {
		text = fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSuffix(text, ".0") + units[unit:unit+1] + "i"
}

// cores says how much CPU there is, in cores: 0.25, 4.
func cores(c api.CPU) string {
	return strconv.FormatFloat(float64(c)/1000, 'f', -1, 64)
}

// milliseconds says how long a round trip takes: 0.3ms, 42ms.
func milliseconds(ms float64) string {
	switch {
	case ms <= 0:
		return none
	case ms < 10:
		return strconv.FormatFloat(ms, 'f', 1, 64) + "ms"
	}
	return strconv.FormatFloat(ms, 'f', 0, 64) + "ms"
}

// or returns s, or what stands for nothing.
func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// plain makes a text from the cluster safe to print in one cell: whoever named
// a node may have put control sequences of terminals into the name.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// shortID is enough of a PeerID to tell it from others.
func shortID(id api.NodeID) string {
	if len(id) <= 12 {
		return string(id)
	}
	return "…" + string(id[len(id)-10:])
}

// pairsOf writes a map as K=V, sorted.
func pairsOf(m map[string]string) string {
	pairs := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, k+"="+m[k])
	}
	return strings.Join(pairs, ", ")
}

// ago says when something was, for the lists of fields.
func ago(p *printer, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", t.UTC().Format(time.RFC3339), age(p.now, t))
}

// joined lists the texts that are not empty.
func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), ", ")
}
