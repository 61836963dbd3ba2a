package p2p

import (
	"crypto/ed25519"
	"errors"
	"net/netip"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// The values of Config.Public.
const (
	PublicAuto = "auto" // find out by AutoNATv2
	PublicYes  = "yes"  // the operator says so: relay for others at once
	PublicNo   = "no"   // never relay for others
)

// DefaultExclude are the cluster's own ranges (virtual IPs, containers). Every
// node has addresses in them, which mean another machine, or itself, to others.
func DefaultExclude() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.213.0.0/16"), netip.MustParsePrefix("10.214.0.0/15")}
}

// Admission is the mesh's view of certificates. Its methods are called often
// and concurrently; they must not block.
type Admission interface {
	// Certificate returns this device's membership certificate. A new value is
	// shown to the connected peers within Config.RefreshEvery.
	Certificate() []byte
	// Verify judges the certificate that a peer showed, also again later.
	Verify(peer api.NodeID, cert []byte) (api.Member, error)
	// Revoked reports whether a peer must be kept out altogether.
	Revoked(peer api.NodeID) bool
}

// Config says how to build a Mesh. Key and Admission are required.
type Config struct {
	Key       ed25519.PrivateKey
	Admission Admission
	Cluster   string    // cluster ID; names the mDNS service
	Contacts  []Contact // known at the start: from the enrolment, or from the last view
	Records   [][]byte  // what Mesh.Records returned in an earlier run

	Listen   []string       // multiaddrs; default: DefaultListen, with a UDP port of its own unless Public is yes
	Announce []string       // multiaddrs told to others beside the detected ones
	Exclude  []netip.Prefix // addresses never told and never dialled; nil means DefaultExclude
	Public   string         // PublicAuto (default), PublicYes or PublicNo

	// RelayLimit is how many bits per second this device relays for others in
	// all; the peers that send get even shares. 0: as many as it can.
	RelayLimit uint64

	aside       uint16 // UDP port that nobody is told
	peerStreams int    // streams that one peer may have; 0: as many as memory allows

	yield time.Duration // that a peer of a lower ID has to dial first; default yieldDirect

	// Client makes a light mesh for the command line: it dials and accepts
	// nothing, it neither listens nor relays nor joins topics.
	Client    bool
	NoLAN     bool // do not look for peers on the LAN by mDNS
	NoPortMap bool // do not ask the router for a port mapping

	Farewell Farewell // of removed members; default: none
	Twins    Twins    // of members with one identity; default: nobody cares
	// Admitted is told of every peer that is admitted. It must not block.
	Admitted func(api.Member)

	AdmitWithin  time.Duration // a peer not admitted after this is disconnected; default 5 s
	RefreshEvery time.Duration // how often certificates and revocations are looked at; default 5 s
	ProbeEvery   time.Duration // how often each peer's round trip is measured, ±20 %, with up to 8 of them; default 30 s

	Now     func() time.Time      // the clock that certificates are judged by; default time.Now
	Log     *zap.Logger           // default: none
	Metrics prometheus.Registerer // default: not registered anywhere
}

const (
	defaultAdmitWithin  = 5 * time.Second
	defaultRefreshEvery = 5 * time.Second
	defaultProbeEvery   = 30 * time.Second
)

// withDefaults returns the configuration with every zero value replaced, or
// what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if len(c.Key) != ed25519.PrivateKeySize {
		return c, errors.New("no device key given")
	}
	if c.Admission == nil {
		return c, errors.New("no admission given")
	}
	switch c.Public {
	case "":
		c.Public = PublicAuto
	case PublicAuto, PublicYes, PublicNo:
	default:
		return c, api.Invalid("public", "%q is not auto, yes or no", c.Public)
	}
	switch {
	case c.Client:
		c.Listen, c.Public, c.NoLAN, c.NoPortMap = nil, PublicNo, true, true
	case len(c.Listen) == 0:
		if c.Public == PublicYes {
			c.aside = asidePort
		}
		c.Listen = defaultListen(c.Key, c.Public)
	}
	if c.Exclude == nil {
		c.Exclude = DefaultExclude()
	}
	if c.Admitted == nil {
		c.Admitted = func(api.Member) {}
	}
	c.AdmitWithin = positive(c.AdmitWithin, defaultAdmitWithin)
	c.RefreshEvery = positive(c.RefreshEvery, defaultRefreshEvery)
	c.ProbeEvery = positive(c.ProbeEvery, defaultProbeEvery)
	c.yield = positive(c.yield, yieldDirect)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	return c, nil
}

func positive(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

func parseAddrs(field string, texts []string) ([]multiaddr.Multiaddr, error) {
	addrs := make([]multiaddr.Multiaddr, 0, len(texts))
	for _, text := range texts {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return nil, api.Invalid(field, "%q is not a multiaddr: %v", text, err).
				WithHint("write it like /ip4/0.0.0.0/tcp/4717 or /ip4/0.0.0.0/udp/4717/quic-v1")
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// excluded reports whether addr starts with an IP in one of the prefixes.
func excluded(addr multiaddr.Multiaddr, prefixes []netip.Prefix) bool {
	ip, ok := firstIP(addr)
	if !ok {
		return false
	}
	for _, p := range prefixes {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func firstIP(addr multiaddr.Multiaddr) (netip.Addr, bool) {
	if len(addr) == 0 {
		return netip.Addr{}, false
	}
	switch addr[0].Protocol().Code {
	case multiaddr.P_IP4, multiaddr.P_IP6:
		ip, ok := netip.AddrFromSlice(addr[0].RawValue())
		return ip.Unmap(), ok
	}
	return netip.Addr{}, false
}
