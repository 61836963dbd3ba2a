package svcnet

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeResolved plays resolvectl.
type fakeResolved struct {
	domain string
	calls  []string
	err    error
}

func (f *fakeResolved) run(_ context.Context, name string, args ...string) ([]byte, error) {
	f.calls = append(f.calls, name+" "+strings.Join(args, " "))
	if f.err != nil {
		return []byte("no bus"), f.err
	}
	if args[0] == "domain" {
		if len(args) == 3 {
			f.domain = args[2]
		}
		return []byte("Link 4 (" + args[1] + "): " + f.domain + "\n"), nil
	}
	return nil, nil
}

func testHost(t *testing.T, conf string, resolved bool) (*hostDNS, *fakeResolved) {
	t.Helper()
	dir, fake := t.TempDir(), new(fakeResolved)
	h := &hostDNS{
		file: filepath.Join(dir, "resolv.conf"), stub: filepath.Join(dir, "stub"),
		address: netip.MustParseAddr("10.213.0.53"), bridge: "cloudless0", run: fake.run,
	}
	if err := os.WriteFile(h.file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	if resolved {
		if err := os.WriteFile(h.stub, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return h, fake
}

func TestHostResolver(t *testing.T) {
	ctx := context.Background()

	h, fake := testHost(t, "nameserver 10.213.0.53\nnameserver 9.9.9.9\n", false)
	if got, err := h.configure(ctx); err != nil || !got.Ready || len(fake.calls) > 0 {
		t.Errorf("resolv.conf that names this node: %+v, %v, ran %q", got, err, fake.calls)
	}

	h, fake = testHost(t, "nameserver 9.9.9.9\n", false)
	got, err := h.configure(ctx)
	if err != nil || got.Ready || got.Kind != ResolverFile || !strings.Contains(got.Hint, "nameserver 10.213.0.53") || len(fake.calls) > 0 {
		t.Errorf("plain resolv.conf: %+v, %v, ran %q", got, err, fake.calls)
	}
	if conf, _ := os.ReadFile(h.file); string(conf) != "nameserver 9.9.9.9\n" {
		t.Errorf("resolv.conf was changed: %q", conf)
	}

	h, fake = testHost(t, "nameserver 127.0.0.53\n", true)
	if got := h.look(ctx); got.Ready || got.Kind != ResolverSystemd || fake.domain != "" {
		t.Errorf("systemd-resolved before: %+v", got)
	}
	for range 2 {
		if got, err := h.configure(ctx); err != nil || !got.Ready || fake.domain != "~cloudless.internal" {
			t.Errorf("systemd-resolved: %+v, %v, ran %q", got, err, fake.calls)
		}
	}

	h, fake = testHost(t, "nameserver 127.0.0.53\n", true)
	fake.err = errors.New("exit status 1")
	if got, err := h.configure(ctx); err == nil || got.Ready || !strings.Contains(got.Hint, "resolvectl dns cloudless0 10.213.0.53") {
		t.Errorf("systemd-resolved that fails: %+v, %v", got, err)
	}
}
