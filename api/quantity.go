package api

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// CPU is an amount of processor time in millicores: 1000 is one core. Its text
// form is "250m" or "1.5".
type CPU int64

// Bytes is a size in bytes. Its text form takes the suffixes Ki, Mi, Gi, Ti
// (powers of 1024) and k, M, G, T (powers of 1000).
type Bytes int64

// Bandwidth is a rate in bits per second. Its text form takes the suffixes
// kbps, Mbps and Gbps.
type Bandwidth int64

// Duration is a time.Duration whose text form is Go's ("30s", "5m").
type Duration time.Duration

// ParseCPU parses "250m", "2" or "1.5".
func ParseCPU(s string) (CPU, error) {
	if milli, ok := strings.CutSuffix(s, "m"); ok {
		n, err := strconv.ParseInt(milli, 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%q is not a CPU amount: write millicores like 250m or cores like 1.5", s)
		}
		return CPU(n), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 1e6 {
		return 0, fmt.Errorf("%q is not a CPU amount: write millicores like 250m or cores like 1.5", s)
	}
	return CPU(math.Round(f * 1000)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *CPU) UnmarshalText(b []byte) (err error) { *c, err = ParseCPU(string(b)); return err }

// MarshalText implements encoding.TextMarshaler.
func (c CPU) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (c CPU) String() string {
	if c%1000 == 0 {
		return strconv.FormatInt(int64(c/1000), 10)
	}
	return strconv.FormatInt(int64(c), 10) + "m"
}

type unit struct {
	suffix string
	factor float64
}

var byteUnits = []unit{
	{"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10},
	{"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3},
}

var bandwidthUnits = []unit{{"Gbps", 1e9}, {"Mbps", 1e6}, {"kbps", 1e3}, {"bps", 1}}

func parseUnits(s string, units []unit) (int64, bool) {
	factor := 1.0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, factor = rest, u.factor
			break
		}
	}
	if factor == 1 {
		n, err := strconv.ParseInt(s, 10, 64)
		return n, err == nil && n >= 0
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f*factor >= math.MaxInt64 {
		return 0, false
	}
	return int64(f * factor), true
}

// ParseBytes parses "128Mi", "1.5Gi", "10G" or a plain number of bytes.
func ParseBytes(s string) (Bytes, error) {
	n, ok := parseUnits(s, byteUnits)
	if !ok {
		return 0, fmt.Errorf("%q is not a size: write it like 128Mi, 2Gi or 1000000", s)
	}
	return Bytes(n), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(t []byte) (err error) { *b, err = ParseBytes(string(t)); return err }

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String returns the shortest exact form in powers of 1024.
func (b Bytes) String() string {
	for _, u := range byteUnits[:4] {
		if f := int64(u.factor); b != 0 && int64(b)%f == 0 {
			return strconv.FormatInt(int64(b)/f, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// ParseBandwidth parses "5Mbps" or a plain number of bits per second.
func ParseBandwidth(s string) (Bandwidth, error) {
	n, ok := parseUnits(s, bandwidthUnits)
	if !ok {
		return 0, fmt.Errorf("%q is not a bandwidth: write it like 5Mbps or 100kbps", s)
	}
	return Bandwidth(n), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bandwidth) UnmarshalText(t []byte) (err error) {
	*b, err = ParseBandwidth(string(t))
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (b Bandwidth) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

func (b Bandwidth) String() string {
	for _, u := range bandwidthUnits {
		if f := int64(u.factor); b != 0 && int64(b)%f == 0 {
			return strconv.FormatInt(int64(b)/f, 10) + u.suffix
		}
	}
	return "0bps"
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration: write it like 500ms, 30s or 5m", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }
