package blockstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/cloudless-project/cloudless/api"
)

// memory is a content store for tests.
type memory struct {
	mu    sync.Mutex
	blobs map[string][]byte
	slow  func() // called for every read, may be nil
}

func (m *memory) put(data []byte) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	if m.blobs == nil {
		m.blobs = make(map[string][]byte)
	}
	m.blobs[d] = data
	return d
}

func (m *memory) HasBlob(_ context.Context, digest string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.blobs[digest]
	return ok, nil
}

type memoryReader struct {
	*bytes.Reader
	slow func()
}

func (memoryReader) Close() error { return nil }

func (r memoryReader) ReadAt(p []byte, off int64) (int, error) {
	if r.slow != nil {
		r.slow()
	}
	return r.Reader.ReadAt(p, off)
}

func (m *memory) OpenBlob(_ context.Context, digest string) (BlobReader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blobs[digest]
	if !ok {
		return nil, api.Errorf(api.KindNotFound, "blob %s is not here", digest)
	}
	return memoryReader{bytes.NewReader(data), m.slow}, nil
}

// node is a host with an exchange and its content.
type node struct {
	*Exchange
	host    host.Host
	content *memory
	id      api.NodeID
	metrics *prometheus.Registry
	stop    func()
}

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.DisableRelay(),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func newNode(t testing.TB, change ...func(*Config)) *node {
	t.Helper()
	n := &node{host: newHost(t), content: &memory{}, metrics: prometheus.NewRegistry()}
	n.id = api.NodeID(n.host.ID().String())
	cfg := Config{
		Host: n.host, Content: n.content, Metrics: n.metrics,
		Allowed:  func(api.NodeID) bool { return true },
		Patience: 100 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	x, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Exchange = x
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		n.host.Close()
	})
	t.Cleanup(n.stop)
	return n
}

// value reads a counter or gauge.
func value(m prometheus.Metric) float64 {
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		panic(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

// introduce lets every host know the others' addresses.
func introduce(hosts ...host.Host) {
	for _, a := range hosts {
		for _, b := range hosts {
			if a != b {
				a.Peerstore().AddAddrs(b.ID(), b.Addrs(), peerstore.PermanentAddrTTL)
			}
		}
	}
}

// hold gives a node a blob and lets it provide it.
func (n *node) hold(t testing.TB, data []byte) api.Blob {
	t.Helper()
	b := api.Blob{Digest: n.content.put(data), Size: int64(len(data))}
	var err error
	if b.Leaves, err = n.Leaves(t.Context(), bytes.NewReader(data), b.Size); err != nil {
		t.Fatal(err)
	}
	if err := n.Provide([]api.Blob{b}); err != nil {
		t.Fatal(err)
	}
	return b
}

func noise(seed uint64, size int) []byte {
	b := make([]byte, size)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	src.Read(b)
	return b
}

// digestWriter verifies what it gets, as the content store does.
type digestWriter struct {
	size int64
	sum  interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func newDigestWriter() *digestWriter { return &digestWriter{sum: sha256.New()} }

func (w *digestWriter) Write(p []byte) (int, error) {
	w.size += int64(len(p))
	return w.sum.Write(p)
}

func (w *digestWriter) check(t testing.TB, b api.Blob) {
	t.Helper()
	if got := fmt.Sprintf("sha256:%x", w.sum.Sum(nil)); got != b.Digest || w.size != b.Size {
		t.Fatalf("got %d bytes with digest %s, want %d with %s", w.size, got, b.Size, b.Digest)
	}
}

func TestFetch(t *testing.T) {
	a, b, c := newNode(t), newNode(t), newNode(t)
	introduce(a.host, b.host, c.host)
	for _, tc := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"small", []byte("{}")},
		{"one leaf", noise(1, api.BlobLeafSize)},
		{"one byte more", noise(2, api.BlobLeafSize+1)},
		{"zeros", make([]byte, 5*api.BlobLeafSize+17)},
		{"40 MiB", noise(3, 40<<20)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			blob := a.hold(t, tc.data)
			var wg sync.WaitGroup
			for _, n := range []*node{b, c} {
				wg.Go(func() {
					w := newDigestWriter()
					if err := n.Fetch(t.Context(), blob, []api.NodeID{a.id, n.id}, w); err != nil {
						t.Error(err)
						return
					}
					w.check(t, blob)
				})
			}
			wg.Wait()
		})
	}
	if n := len(b.permits) + len(c.permits); n != 0 {
		t.Errorf("%d permits were not given back", n)
	}
	if len(b.gate.users) != 0 {
		t.Errorf("sources are still in use: %v", b.gate.users)
	}
}

func TestFetchOfManyAtOnceSharesTheBound(t *testing.T) {
	a := newNode(t)
	b := newNode(t, func(c *Config) { c.MaxInFlight = 2 })
	introduce(a.host, b.host)
	var wg sync.WaitGroup
	for i := range 5 {
		blob := a.hold(t, noise(uint64(i), 3*api.BlobLeafSize+i))
		wg.Go(func() {
			w := newDigestWriter()
			if err := b.Fetch(t.Context(), blob, []api.NodeID{a.id}, w); err != nil {
				t.Error(err)
				return
			}
			w.check(t, blob)
		})
	}
	wg.Wait()
}

func TestFetchFromSeveral(t *testing.T) {
	a, b, c := newNode(t), newNode(t), newNode(t)
	introduce(a.host, b.host, c.host)
	data := noise(4, 24<<20)
	blob := a.hold(t, data)
	b.hold(t, data)
	w := newDigestWriter()
	if err := c.Fetch(t.Context(), blob, []api.NodeID{a.id, b.id}, w); err != nil {
		t.Fatal(err)
	}
	w.check(t, blob)
	for _, n := range []*node{a, b} {
		t.Logf("served %v bytes", value(n.Exchange.metrics.served))
	}
}

func TestFetchPrefersNear(t *testing.T) {
	far, near := newNode(t), newNode(t)
	c := newNode(t, func(c *Config) {
		c.Rank = func(id api.NodeID) int {
			if id == far.id {
				return 2
			}
			return 0
		}
		c.Patience = time.Minute // a near node is given all the time it wants
	})
	introduce(far.host, near.host, c.host)
	data := noise(5, 8<<20)
	blob := far.hold(t, data)
	near.hold(t, data)
	if err := c.Fetch(t.Context(), blob, []api.NodeID{far.id, near.id}, newDigestWriter()); err != nil {
		t.Fatal(err)
	}
	if n := value(far.Exchange.metrics.served); n != 0 {
		t.Errorf("the far node served %v bytes", n)
	}
}

func TestProviderDiesMidway(t *testing.T) {
	a, b, c := newNode(t), newNode(t), newNode(t)
	introduce(a.host, b.host, c.host)
	data := noise(6, 24<<20)
	blob := a.hold(t, data)
	b.hold(t, data)
	var reads atomic.Int32
	gone := make(chan struct{})
	a.content.slow = func() {
		n := reads.Add(1)
		if n == 6 {
			go func() {
				a.host.Close()
				close(gone)
				a.stop()
			}()
		}
		if n >= 6 {
			<-gone // or it might have served everything before it is stopped
		}
	}
	w := newDigestWriter()
	// c hears of b only after a is gone.
	c.cfg.Rank = func(id api.NodeID) int { return strings.Index(string(a.id+b.id), string(id)) }
	if err := c.Fetch(t.Context(), blob, []api.NodeID{a.id, b.id}, w); err != nil {
		t.Fatal(err)
	}
	w.check(t, blob)
	if value(b.Exchange.metrics.served) == 0 {
		t.Error("the other node served nothing")
	}
}

func TestSilentProvider(t *testing.T) {
	silent := newHost(t)
	silent.SetStreamHandler(Protocol, func(s network.Stream) { io.Copy(io.Discard, s) })
	a, c := newNode(t), newNode(t)
	introduce(silent, a.host, c.host)
	c.cfg.Rank = func(id api.NodeID) int { return strings.Index(silent.ID().String()+string(a.id), string(id)) }
	blob := a.hold(t, noise(7, 4<<20))
	w := newDigestWriter()
	if err := c.Fetch(t.Context(), blob, []api.NodeID{api.NodeID(silent.ID().String()), a.id}, w); err != nil {
		t.Fatal(err)
	}
	w.check(t, blob)
}

func TestProviderHangsMidway(t *testing.T) {
	a, b, c := newNode(t), newNode(t), newNode(t)
	introduce(a.host, b.host, c.host)
	data := noise(18, 16<<20)
	blob := a.hold(t, data)
	b.hold(t, data)
	var reads atomic.Int32
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	a.content.slow = func() {
		if reads.Add(1) > 3 {
			<-hang
		}
	}
	w := newDigestWriter()
	if err := c.Fetch(t.Context(), blob, []api.NodeID{a.id, b.id}, w); err != nil {
		t.Fatal(err)
	}
	w.check(t, blob)
}

// lie answers every want with content of its own.
func lie(h host.Host) {
	h.SetStreamHandler(Protocol, func(s network.Stream) {
		defer s.Close()
		for {
			in, _, err := message.FromNet(s)
			if err != nil {
				return
			}
			for _, want := range in.Wantlist() {
				if want.Cancel {
					continue
				}
				out := message.New(false)
				out.AddHave(want.Cid)
				out.AddBlock(newBlock(noise(uint64(want.Priority), api.BlobLeafSize)))
				reply, err := h.NewStream(context.Background(), s.Conn().RemotePeer(), Protocol)
				if err != nil {
					return
				}
				out.ToNetV1(reply)
				reply.Close()
			}
		}
	})
}

func TestLyingProvider(t *testing.T) {
	liar := newHost(t)
	lie(liar)
	// The honest node is asked only after the liar was caught.
	a, c := newNode(t), newNode(t, func(c *Config) { c.Patience = 10 * time.Second })
	introduce(liar, a.host, c.host)
	liarID := api.NodeID(liar.ID().String())
	c.cfg.Rank = func(id api.NodeID) int { return strings.Index(string(liarID+a.id), string(id)) }
	blob := a.hold(t, noise(8, 6<<20))
	fetch := func() {
		w := newDigestWriter()
		if err := c.Fetch(t.Context(), blob, []api.NodeID{liarID, a.id}, w); err != nil {
			t.Fatal(err)
		}
		w.check(t, blob)
	}
	fetch()
	if value(c.Exchange.metrics.lies) == 0 {
		t.Error("the liar was not caught")
	}
	lies := settled(func() float64 { return value(c.Exchange.metrics.lies) }) // lies that were on their way
	fetch()
	if again := value(c.Exchange.metrics.lies); again != lies {
		t.Errorf("%v lies counted after %v: the liar was asked again", again, lies)
	}
}

// settled returns a value that has not changed for half a second, or what it
// is after five.
func settled(read func() float64) float64 {
	last, since := read(), time.Now()
	for deadline := since.Add(5 * time.Second); time.Now().Before(deadline) && time.Since(since) < 500*time.Millisecond; {
		if now := read(); now != last {
			last, since = now, time.Now()
		}
		<-time.After(10 * time.Millisecond)
	}
	return last
}

func TestUnknownLeafIsUnavailable(t *testing.T) {
	a := newNode(t)
	var asked atomic.Int32
	b := newNode(t, func(c *Config) {
		c.Stall = 2 * time.Second
		c.Patience = 50 * time.Millisecond
		c.Providers = func(string) []api.NodeID { asked.Add(1); return []api.NodeID{a.id} }
	})
	introduce(a.host, b.host)
	blob := a.hold(t, noise(9, 2<<20))
	a.Withdraw([]string{blob.Digest})
	err := b.Fetch(t.Context(), blob, []api.NodeID{a.id}, io.Discard)
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), string(a.id)) {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	if asked.Load() == 0 {
		t.Error("Providers was not asked again")
	}
	err = b.Fetch(t.Context(), blob, []api.NodeID{b.id}, io.Discard)
	if api.KindOf(err) != api.KindUnavailable {
		t.Fatalf("got %v", err)
	}
}

func TestBlobThatAppearsLater(t *testing.T) {
	a := newNode(t)
	b := newNode(t, func(c *Config) { c.Patience = 50 * time.Millisecond })
	introduce(a.host, b.host)
	blob := a.hold(t, noise(10, 2<<20))
	a.Withdraw([]string{blob.Digest})
	asked := make(chan struct{}, 16)
	b.cfg.Providers = func(string) []api.NodeID {
		asked <- struct{}{}
		return nil
	}
	go func() {
		<-asked
		a.Provide([]api.Blob{blob})
	}()
	w := newDigestWriter()
	if err := b.Fetch(t.Context(), blob, []api.NodeID{a.id}, w); err != nil {
		t.Fatal(err)
	}
	w.check(t, blob)
}

func TestStrangersAreRefused(t *testing.T) {
	var members sync.Map
	allowed := func(c *Config) {
		c.Allowed = func(id api.NodeID) bool { _, ok := members.Load(id); return ok }
		c.Stall = 500 * time.Millisecond
		c.Patience = 50 * time.Millisecond
	}
	a, stranger := newNode(t, allowed), newNode(t, func(c *Config) { c.Stall = 500 * time.Millisecond })
	introduce(a.host, stranger.host)
	blob := a.hold(t, noise(11, 1<<20))
	err := stranger.Fetch(t.Context(), blob, []api.NodeID{a.id}, io.Discard)
	if api.KindOf(err) != api.KindUnavailable {
		t.Fatalf("got %v", err)
	}
	if value(a.Exchange.metrics.served) != 0 {
		t.Error("a stranger was served")
	}
	other := stranger.hold(t, noise(12, 1<<20))
	err = a.Fetch(t.Context(), other, []api.NodeID{stranger.id}, io.Discard)
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), string(stranger.id)) {
		t.Fatalf("got %v", err)
	}
	// Admission comes after the connection, and is waited for.
	a.cfg.Stall, stranger.cfg.Stall = time.Minute, time.Minute
	go members.Store(stranger.id, true)
	if err := a.Fetch(t.Context(), other, []api.NodeID{stranger.id}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := stranger.Fetch(t.Context(), blob, []api.NodeID{a.id}, io.Discard); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptBlobIsReportedAndNotServed(t *testing.T) {
	reported := make(chan string, 4)
	bad := newNode(t, func(c *Config) { c.Corrupt = func(d string) { reported <- d } })
	good, c := newNode(t), newNode(t)
	introduce(bad.host, good.host, c.host)
	data := noise(13, 3<<20)
	blob := bad.hold(t, data)
	good.content.put(data)
	broken := slices.Clone(data)
	broken[len(broken)-1] ^= 1
	bad.content.blobs[blob.Digest] = broken
	c.cfg.Rank = func(id api.NodeID) int { return strings.Index(string(bad.id+good.id), string(id)) }
	told := make(chan string, 1)
	go func() {
		told <- <-reported
		good.Provide([]api.Blob{blob}) // not before: the bad one must be asked
	}()
	w := newDigestWriter()
	if err := c.Fetch(t.Context(), blob, []api.NodeID{bad.id, good.id}, w); err != nil {
		t.Fatal(err)
	}
	w.check(t, blob)
	if d := <-told; d != blob.Digest {
		t.Errorf("reported %s", d)
	}
	if n := bad.index.len(); n != 0 {
		t.Errorf("%d leaves are still provided", n)
	}
	if len(reported) != 0 {
		t.Error("reported more than once")
	}
}

func TestWriteErrorAndCancelEndTheFetch(t *testing.T) {
	a, b := newNode(t), newNode(t)
	introduce(a.host, b.host)
	blob := a.hold(t, noise(14, 8<<20))
	full := errors.New("disk full")
	if err := b.Fetch(t.Context(), blob, []api.NodeID{a.id}, failing{err: full}); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := b.Fetch(ctx, blob, []api.NodeID{a.id}, failing{then: cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(b.permits) != 0 {
		t.Errorf("%d permits were not given back", len(b.permits))
	}
}

type failing struct {
	err  error
	then func()
}

func (f failing) Write(p []byte) (int, error) {
	if f.then != nil {
		f.then()
	}
	return len(p), f.err
}

// Both ends together stay within the bound that the doc comments promise, with
// a writer that is slower than the network.
func TestMemoryIsBounded(t *testing.T) {
	a, b := newNode(t), newNode(t)
	introduce(a.host, b.host)
	blob := a.hold(t, noise(15, 64<<20))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var most uint64
	written := 0
	err := b.Fetch(t.Context(), blob, []api.NodeID{a.id}, writerFunc(func(p []byte) (int, error) {
		if written++; written%16 == 0 {
			runtime.GC() // live memory, not garbage
			runtime.ReadMemStats(&after)
			most = max(most, after.HeapAlloc-min(after.HeapAlloc, before.HeapAlloc))
		}
		return len(p), nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("live memory above the blob itself: %d MiB", most>>20)
	if most > 112<<20 {
		t.Errorf("both ends keep %d MiB alive", most>>20)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestProtocolIsBitswap(t *testing.T) {
	if want := "/cloudless" + string(bsnet.ProtocolBitswap); Protocol != want {
		t.Errorf("Protocol is %s, want %s", Protocol, want)
	}
}

func TestNoGoroutinesLeftBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	func() {
		a, b := newNode(t), newNode(t)
		defer a.stop()
		defer b.stop()
		introduce(a.host, b.host)
		blob := a.hold(t, noise(16, 3<<20))
		if err := b.Fetch(t.Context(), blob, []api.NodeID{a.id}, io.Discard); err != nil {
			t.Fatal(err)
		}
	}()
	err := goleak.Find(before)
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); {
		err = goleak.Find(before) // itself waits for a second or so
	}
	if err != nil {
		t.Error(err)
	}
}

func BenchmarkFetch(b *testing.B) {
	for _, rtt := range []time.Duration{0, 60 * time.Millisecond} {
		b.Run(fmt.Sprint("rtt=", rtt), func(b *testing.B) {
			x, y := newNode(b), newNode(b)
			introduceDelayed(b, y.host, x.host, rtt)
			blob := x.hold(b, noise(17, 64<<20))
			b.SetBytes(blob.Size)
			for b.Loop() {
				if err := y.Fetch(b.Context(), blob, []api.NodeID{x.id}, io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPlainStream is what Fetch is measured against: one stream, verified
// as a whole.
func BenchmarkPlainStream(b *testing.B) {
	for _, rtt := range []time.Duration{0, 60 * time.Millisecond} {
		b.Run(fmt.Sprint("rtt=", rtt), func(b *testing.B) {
			x, y := newHost(b), newHost(b)
			introduceDelayed(b, y, x, rtt)
			data := noise(17, 64<<20)
			x.SetStreamHandler("/plain", func(s network.Stream) {
				s.Write(data)
				s.Close()
			})
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				s, err := y.NewStream(b.Context(), x.ID(), "/plain")
				if err != nil {
					b.Fatal(err)
				}
				sum := sha256.New()
				if n, err := io.Copy(sum, s); err != nil || n != int64(len(data)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
