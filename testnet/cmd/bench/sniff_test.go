//go:build linux

package main

import (
	"encoding/hex"
	"strings"
	"testing"
)

// frameOf is an Ethernet frame with the given type and payload.
func frameOf(t testing.TB, kind, payload string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Repeat("02", 12) + kind + payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKindOf(t *testing.T) {
	const (
		four = "450000000000000040%s0000" + "c0a80b0b" + "c0000041" // 192.168.11.11 → 192.0.0.65
		six  = "60000000000011ff" + "fe800000000000000000000000000001" + "ff0200000000000000000000000000fb"
	)
	ip := func(proto string) string { return strings.Replace(four, "%s", proto, 1) }
	for _, tt := range []struct {
		name, kind, payload string
		outgoing            bool
		want                string
	}{
		{"a packet to an anchor", "0800", ip("11") + "60d3126d", true, "udp 192.0.0.65:4717"},
		{"one that came", "0800", ip("06") + "126d60d3", false, "tcp 192.168.11.11:4717"},
		{"with options", "0800", "46" + ip("11")[2:] + "00000000" + "60d3126d", true, "udp 192.0.0.65:4717"},
		{"a question to the LAN", "86dd", six + "14e914e9", true, "mDNS"},
		{"a search for UPnP", "0800", ip("11") + "ffff076c", true, "search for a router"},
		{"ICMP", "0800", ip("01") + "00000000", false, "other"},
		{"ARP", "0806", strings.Repeat("00", 28), false, "other"},
		{"cut short", "0800", ip("11") + "60", false, "other"},
	} {
		if got := kindOf(frameOf(t, tt.kind, tt.payload), tt.outgoing); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzKindOf(f *testing.F) {
	f.Add(frameOf(f, "0800", "4f"+strings.Repeat("00", 40)), true)
	f.Add([]byte{1, 2, 3}, false)
	f.Fuzz(func(t *testing.T, frame []byte, outgoing bool) {
		if kindOf(frame, outgoing) == "" {
			t.Error("a frame of no kind")
		}
	})
}
