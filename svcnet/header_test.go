package svcnet

import (
	"bytes"
	"strings"
	"testing"
)

func TestHeaderRoundTrip(t *testing.T) {
	for _, want := range []header{
		{proto: tcp, port: 80, flow: newToken(), service: "web", replica: "web.2.5"},
		{proto: udp, port: 65535, service: strings.Repeat("s", 63), replica: "db.0.1", source: "web.0.1"},
	} {
		b, err := want.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		r := bytes.NewReader(append(b, "first bytes of the stream"...))
		got, err := readHeader(r)
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
		if r.Len() != len("first bytes of the stream") {
			t.Errorf("the header took %d bytes of the stream", len("first bytes of the stream")-r.Len())
		}
	}
	long := header{proto: tcp, port: 1, service: strings.Repeat("s", maxHeaderField+1), replica: "x"}
	if _, err := long.append(nil); err == nil {
		t.Error("a name beyond the bound was encoded")
	}
}

func FuzzReadHeader(f *testing.F) {
	good := header{proto: udp, port: 53, service: "dns", replica: "dns.0.1", source: "web.0.1"}
	seed, err := good.append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Add([]byte("\xff\xff"))
	f.Add([]byte("\x00\x14\x02\x06\x00\x50sixteen bytes..."))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := h.append(nil)
		if err != nil || !bytes.HasPrefix(b, again) {
			t.Errorf("%x was read as %+v, which is written %x, %v", b, h, again, err)
		}
	})
}
