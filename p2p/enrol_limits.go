package p2p

import (
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"
)

// allowance is how many attempts to enrol there may be: so many a second, after
// so many at once.
type allowance struct {
	rate  rate.Limit
	burst int
}

func (a allowance) limiter() *rate.Limiter { return rate.NewLimiter(a.rate, a.burst) }

var (
	enrolPeer    = allowance{2, 5}    // of one peer, before a word of it is read
	enrolToken   = allowance{20, 100} // with one token: a rack that is switched on
	enrolAddress = allowance{5, 50}   // without a token that holds: of one IPv4 address, or /64 ...
	enrolNetwork = allowance{10, 100} // ... of one IPv4 /24, or /48 ...
	enrolOthers  = allowance{40, 400} // ... and of all together
)

// maxEnrolLimiters is how many peers, tokens, addresses and networks are
// remembered, of each kind. The cluster has at most 1,000 tokens.
const maxEnrolLimiters = 4096

// enrolLimits keep those who guess from those who are invited. To make a key is
// cheap, and to have many addresses is not dear: only the secret of a token
// proves that somebody may ask, and it costs one hash to check. What an attempt
// without one can take is what others without one would have had.
type enrolLimits struct {
	mu        sync.Mutex
	peers     limiters[peer.ID]
	tokens    limiters[string]
	addresses limiters[netip.Prefix]
	networks  limiters[netip.Prefix]
	others    *rate.Limiter
}

func newEnrolLimits() *enrolLimits {
	return &enrolLimits{
		peers: newLimiters[peer.ID](enrolPeer), tokens: newLimiters[string](enrolToken),
		addresses: newLimiters[netip.Prefix](enrolAddress), networks: newLimiters[netip.Prefix](enrolNetwork),
		others: enrolOthers.limiter(),
	}
}

// peer takes one attempt of p's.
func (l *enrolLimits) peer(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers.allow(p)
}

// token takes one attempt with a token that holds. The caller has checked the
// secret: the ID alone is no secret.
func (l *enrolLimits) token(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tokens.allow(id)
}

// uninvited takes one attempt of an address, of the network that it is in, and
// of everybody who shows no token that holds.
func (l *enrolLimits) uninvited(from multiaddr.Multiaddr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ip, _ := firstIP(from)
	return l.addresses.allow(prefix(ip, 32, 64)) && l.networks.allow(prefix(ip, 24, 48)) && l.others.Allow()
}

// prefix is the network that ip is in, of so many bits in IPv4 and in IPv6.
func prefix(ip netip.Addr, bits4, bits6 int) netip.Prefix {
	bits := bits4
	if ip.Is6() {
		bits = bits6
	}
	p, _ := ip.Prefix(bits) // of no address, as behind a relay: one for all of them
	return p
}

// limiters have one limiter for each of many.
type limiters[K comparable] struct {
	each allowance
	of   map[K]*rate.Limiter
}

func newLimiters[K comparable](each allowance) limiters[K] {
	return limiters[K]{each: each, of: make(map[K]*rate.Limiter)}
}

func (l *limiters[K]) allow(k K) bool {
	limiter := l.of[k]
	if limiter == nil {
		if len(l.of) >= maxEnrolLimiters {
			clear(l.of) // the wider limits still hold
		}
		limiter = l.each.limiter()
		l.of[k] = limiter
	}
	return limiter.Allow()
}
