package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
)

const (
	enrolDialTimeout = 10 * time.Second // of all addresses of one anchor
	maxEnrolAnchors  = 16

	// EnrolPatience is how long a joiner should go on asking anchors that have no
	// time for it.
	EnrolPatience = 2 * time.Minute
	enrolAgain    = time.Second      // before the second attempt; then twice as long each time ...
	maxEnrolAgain = 15 * time.Second // ... up to this
)

// EnrolConfig is what a joiner needs: its own key, the anchors that its token
// names, and the request.
type EnrolConfig struct {
	Key     ed25519.PrivateKey
	Anchors []string // multiaddrs that end in /p2p/<peer-id>
	Request EnrolRequest

	// Patience is how long to go on when the anchors answer that they have no time
	// just now; 0: their first word counts.
	Patience time.Duration
	// Waiting is told of such an answer and of the wait before the next attempt.
	// Default: nobody is told.
	Waiting func(answer error, wait time.Duration)
}

// Enrol asks the anchors, one after the other, to make this device a member.
// TLS proves an anchor's PeerID before the request, which holds the secret, is
// sent. An error of kind KindUnavailable says what was tried; KindExhausted,
// that the anchors had no time; any other kind is an anchor's refusal.
func Enrol(ctx context.Context, cfg EnrolConfig) (EnrolReply, error) {
	anchors, err := anchorsOf(cfg.Anchors)
	if err != nil {
		return EnrolReply{}, err
	}
	h, err := enrolHost(cfg.Key)
	if err != nil {
		return EnrolReply{}, err
	}
	defer h.Close()
	if cfg.Request.Time == 0 {
		cfg.Request.Time = time.Now().Unix()
	}
	backoff := retry.Backoff{Initial: enrolAgain, Max: maxEnrolAgain}
	for until := time.Now().Add(cfg.Patience); ; {
		reply, err := enrolAtOne(ctx, h, anchors, cfg.Request)
		wait := backoff.Next()
		if !errors.Is(err, errAskAgain) || time.Now().Add(wait).After(until) {
			return reply, err
		}
		if cfg.Waiting != nil {
			cfg.Waiting(err, wait)
		}
		if retry.Sleep(ctx, wait) != nil {
			return EnrolReply{}, err // says more than that the time is over
		}
	}
}

// errAskAgain marks the answer of an anchor that has decided nothing.
var errAskAgain = errors.New("nothing was decided")

// enrolAtOne asks one anchor after the other until one decides.
func enrolAtOne(ctx context.Context, h host.Host, anchors []peer.AddrInfo, req EnrolRequest) (EnrolReply, error) {
	var failures []string
	var again error
	for _, anchor := range anchors {
		reply, err := enrolAt(ctx, h, anchor, req)
		switch {
		case err == nil:
			return reply, nil
		case errors.Is(err, errAskAgain):
			again = err
		case final(err):
			return EnrolReply{}, err
		}
		failures = append(failures, fmt.Sprintf("%s: %v", anchor.ID, err))
		if ctx.Err() != nil {
			break
		}
	}
	if again != nil {
		return EnrolReply{}, again
	}
	return EnrolReply{}, api.Errorf(api.KindUnavailable, "no anchor could be reached: %s", strings.Join(failures, "; ")).
		WithHint("check that the anchor runs and that its port is open for TCP and UDP; a token made now holds its present addresses")
}

// final reports whether an anchor has said no in a way that another anchor
// would repeat.
func final(err error) bool {
	switch api.KindOf(err) {
	case api.KindUnavailable, api.KindTimeout, api.KindInternal, "":
		return false
	}
	return true
}

func anchorsOf(texts []string) ([]peer.AddrInfo, error) {
	addrs, err := parseAddrs("anchors", texts)
	if err != nil {
		return nil, err
	}
	anchors, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return nil, api.Invalid("anchors", "an address does not end in /p2p/<peer-id>: %v", err)
	}
	if len(anchors) == 0 {
		return nil, api.Invalid("anchors", "no anchor is named")
	}
	return anchors[:min(len(anchors), maxEnrolAnchors)], nil
}

// enrolHost dials with the joiner's own key and accepts nothing.
func enrolHost(key ed25519.PrivateKey) (host.Host, error) {
	k, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("enrol: read key: %w", err)
	}
	h, err := libp2p.New(
		libp2p.Identity(k), libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.Ping(false),
		libp2p.Security(tls.ID, tls.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(quic.NewTransport),
		libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.UserAgent("cloudless"),
	)
	if err != nil {
		return nil, fmt.Errorf("enrol: start libp2p host: %w", err)
	}
	return h, nil
}

func enrolAt(ctx context.Context, h host.Host, anchor peer.AddrInfo, req EnrolRequest) (EnrolReply, error) {
	dctx, cancel := context.WithTimeout(network.WithDialPeerTimeout(ctx, enrolDialTimeout), enrolDialTimeout)
	err := h.Connect(dctx, anchor)
	cancel()
	if err != nil {
		return EnrolReply{}, api.Errorf(api.KindUnavailable, "%w", enrolDialFailure(anchor, err))
	}
	ctx, cancel = context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	s, err := h.NewStream(ctx, anchor.ID, api.ProtoEnrol)
	if err != nil {
		return EnrolReply{}, api.Errorf(api.KindUnavailable, "it is reached, and does not enrol: %w", err)
	}
	defer s.Close()
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	if err := writeFrame(s, maxEnrolFrame, req); err != nil {
		_ = s.Reset()
		return EnrolReply{}, api.Errorf(api.KindUnavailable, "send request: %w", err)
	}
	var answer enrolAnswer
	if err := readFrame(s, maxEnrolFrame, &answer); err != nil {
		_ = s.Reset()
		return EnrolReply{}, api.Errorf(api.KindUnavailable, "wait for the answer: %w", err)
	}
	if answer.Reply == nil {
		return EnrolReply{}, refused(answer)
	}
	return *answer.Reply, nil
}

func refused(a enrolAnswer) error {
	if a.Kind == "" {
		a.Kind, a.Message = api.KindInternal, "the anchor sent an empty answer"
	}
	e := &api.Error{Kind: a.Kind, Message: clip(a.Message, maxReason), Hint: clip(a.Hint, maxReason)}
	if a.Again {
		e.Err = errAskAgain
	}
	return e
}

// enrolDialFailure names every address: which of them is wrong is what the
// joiner's owner has to find out.
func enrolDialFailure(anchor peer.AddrInfo, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		tried := make([]string, len(anchor.Addrs))
		for i, a := range anchor.Addrs {
			tried[i] = a.String()
		}
		return fmt.Errorf("no answer within %v, tried %s", enrolDialTimeout, strings.Join(tried, ", "))
	}
	return dialFailure(err)
}

// asError returns the *api.Error in err's chain, nil without one.
func asError(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}
