package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"

	"github.com/cloudless-project/cloudless/api"
)

// attempts asks for time again and again and returns how often there was some.
func attempts(n int, allow func() bool) (allowed int) {
	for range n {
		if allow() {
			allowed++
		}
	}
	return allowed
}

// Who shows no token has what its address, its network and all others like it
// leave. In a bubble no time passes, so the bursts are all there is.
func TestUninvitedAreLimitedByWhereTheyCome(t *testing.T) {
	from := func(l *enrolLimits, addr string, n int) int {
		return attempts(n, func() bool { return l.uninvited(multiaddr.StringCast(addr)) })
	}
	synctest.Test(t, func(t *testing.T) {
		l := newEnrolLimits()
		for _, tt := range []struct {
			what, addr string
			n, want    int
		}{
			{"one IPv4 address", "/ip4/192.0.2.1/tcp/1", 300, enrolAddress.burst},
			{"its neighbours", "/ip4/192.0.2.2/tcp/1", 40, 40},
			{"more neighbours than a network may have", "/ip4/192.0.2.3/tcp/1", 40, enrolNetwork.burst - enrolAddress.burst - 40},
			{"one IPv6 address", "/ip6/2001:db8::1/tcp/1", 300, enrolAddress.burst},
			{"another one of the same /64", "/ip6/2001:db8::ffff:1/tcp/1", 10, 0},
			{"another /64 of the same /48", "/ip6/2001:db8:0:1::1/tcp/1", 40, 40},
			{"one more", "/ip6/2001:db8:0:2::1/tcp/1", 40, enrolNetwork.burst - enrolAddress.burst - 40},
			{"another network", "/ip4/198.51.100.1/tcp/1", 10, 10},
			{"no address at all", "/p2p-circuit", 300, enrolAddress.burst},
		} {
			if got := from(l, tt.addr, tt.n); got != tt.want {
				t.Errorf("%s: %d of %d were heard, want %d", tt.what, got, tt.n, tt.want)
			}
		}
		heard := 2*enrolNetwork.burst + 10 + enrolAddress.burst
		for i := range 256 {
			heard += from(l, fmt.Sprintf("/ip4/10.0.%d.1/tcp/1", i), 10)
		}
		if heard != enrolOthers.burst {
			t.Errorf("%d were heard in all, want %d", heard, enrolOthers.burst)
		}
		time.Sleep(time.Minute)
		if from(l, "/ip4/192.0.2.1/tcp/1", 1) != 1 {
			t.Error("who has waited is not heard again")
		}
	})
}

// A token pays for itself, and is not paid for by anybody else.
func TestTokensHaveTheirOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newEnrolLimits()
		for i := range 1000 {
			l.uninvited(multiaddr.StringCast(fmt.Sprintf("/ip4/10.%d.%d.1/tcp/1", i/256, i%256)))
		}
		for _, id := range []string{"one", "another"} {
			if n := attempts(2*enrolToken.burst, func() bool { return l.token(id) }); n != enrolToken.burst {
				t.Errorf("token %s was heard %d times, want %d", id, n, enrolToken.burst)
			}
		}
	})
}

// What is remembered of attempts is bounded.
func TestEnrolLimitsForget(t *testing.T) {
	l := newLimiters[int](enrolPeer)
	for i := range 3 * maxEnrolLimiters {
		l.allow(i)
		if len(l.of) > maxEnrolLimiters {
			t.Fatalf("%d limiters are kept", len(l.of))
		}
	}
}

// While strangers ask from many networks, each time with another key and with a
// token that does not hold, who has one that does is heard at the first attempt.
func TestInvitedAreHeardInAFlood(t *testing.T) {
	const networks = 8
	a := newAuthority(t)
	anchor := a.start(t, func(c *Config) {
		public(c)
		c.Listen = loopback()[:1]
	}, api.RoleNode, api.RoleAnchor)
	anchor.enrol.limits.others = rate.NewLimiter(0, 0) // all the time that a larger flood would take
	var seen sync.Map                                  // networks that attempts came from
	invited := func(r EnrolRequest) bool {
		seen.Store(originOf(r.Address), true)
		return r.TokenID == "t1" && string(r.Secret) == "secret"
	}
	anchor.ServeEnrol(invited, func(_ context.Context, r EnrolRequest) (EnrolReply, error) {
		if !invited(r) {
			return EnrolReply{}, api.Errorf(api.KindDenied, "the token is not known here")
		}
		return EnrolReply{ClusterName: "home"}, nil
	})

	ctx, stop := context.WithCancel(testContext(t))
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	var asked, turnedAway atomic.Int64
	to := direct(t, anchor, transportTCP)
	for i := range networks {
		flood.Go(func() {
			for tick := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; <-tick.C { // not to starve other tests
				asked.Add(1)
				if guess(ctx, fmt.Sprintf("/ip4/127.7.%d.1/tcp/0", i), to) == api.KindExhausted {
					turnedAway.Add(1)
				}
			}
		})
	}
	eventually(t, "strangers from every network are turned away", func() bool {
		n := 0
		seen.Range(func(any, any) bool { n++; return true })
		return n >= networks && turnedAway.Load() > networks
	})
	for range 5 {
		key, _ := newKey(t)
		begun := time.Now()
		reply, err := Enrol(testContext(t), EnrolConfig{
			Key: key, Anchors: dialable(anchor), Request: EnrolRequest{TokenID: "t1", Secret: []byte("secret")},
		})
		if err != nil || reply.ClusterName != "home" {
			t.Errorf("a joiner with a token: %+v, %v", reply, err)
		}
		t.Logf("it joined within %v", time.Since(begun))
	}
	t.Logf("strangers asked %d times and were turned away %d times", asked.Load(), turnedAway.Load())
}

// originOf is the network that an attempt comes from.
func originOf(addr string) netip.Prefix {
	ip, _ := firstIP(multiaddr.StringCast(addr))
	return prefix(ip, 24, 48)
}

// guess asks once to enrol, with a key of its own, and returns the answer.
func guess(ctx context.Context, from string, to peer.AddrInfo) api.Kind {
	h, err := libp2p.New(libp2p.ListenAddrStrings(from), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		return ""
	}
	defer h.Close()
	_, err = enrolAt(ctx, h, to, EnrolRequest{TokenID: "t1", Secret: []byte("guessed")})
	return api.KindOf(err)
}

// A joiner whose token has no time left asks again, says so, and gives up when
// it has no patience.
func TestJoinerAsksAgain(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	anchor := a.start(t, public, api.RoleNode, api.RoleAnchor)
	anchor.ServeEnrol(func(EnrolRequest) bool { return true }, func(context.Context, EnrolRequest) (EnrolReply, error) {
		return EnrolReply{ClusterName: "home"}, nil
	})
	anchor.enrol.limits.mu.Lock()
	limiter := rate.NewLimiter(0, 1)
	limiter.Allow()
	anchor.enrol.limits.tokens.of["t1"] = limiter
	anchor.enrol.limits.mu.Unlock()

	key, _ := newKey(t)
	cfg := EnrolConfig{Key: key, Anchors: dialable(anchor), Request: EnrolRequest{TokenID: "t1"}}
	if _, err := Enrol(testContext(t), cfg); api.KindOf(err) != api.KindExhausted {
		t.Errorf("without patience: %v", err)
	}
	waited := 0
	cfg.Patience = testTimeout
	cfg.Waiting = func(answer error, wait time.Duration) {
		waited++
		if api.KindOf(answer) != api.KindExhausted || wait <= 0 {
			t.Errorf("waiting %v for %v", wait, answer)
		}
		anchor.enrol.limits.mu.Lock()
		defer anchor.enrol.limits.mu.Unlock()
		delete(anchor.enrol.limits.tokens.of, "t1")
	}
	reply, err := Enrol(testContext(t), cfg)
	if err != nil || reply.ClusterName != "home" || waited != 1 {
		t.Errorf("reply = %+v, %v, after %d waits", reply, err, waited)
	}
}
