package control

import (
	"context"
	"strings"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/wire"
)

const (
	// electionWait bounds how long a call waits for a leader to be elected: an
	// election takes about a second, also the first one of a new cluster.
	electionWait  = 5 * time.Second
	electionCheck = 50 * time.Millisecond
)

// findLeader returns the leader as far as this node knows, which may be itself.
// While the anchors are electing one, it waits for a moment.
func (s *Server) findLeader(ctx context.Context) (to api.NodeID, leads, ok bool) {
	limit := time.NewTimer(electionWait)
	defer limit.Stop()
	look := time.NewTicker(electionCheck)
	defer look.Stop()
	for {
		if s.leads() {
			return s.cfg.Self.ID, true, true
		}
		if to, ok = s.cfg.Leader(); ok && to != s.cfg.Self.ID {
			return to, false, true
		}
		select {
		case <-look.C:
		case <-limit.C:
			return to, false, ok
		case <-ctx.Done():
			return to, false, ok
		}
	}
}

func (s *Server) leads() bool { return s.cfg.Anchor != nil && s.cfg.Anchor.IsLeader() }

// route says which node answers a call.
func (s *Server) route(ctx context.Context, c *Caller, r rule) (api.NodeID, error) {
	self := s.cfg.Self.ID
	if r.at == here || s.leads() {
		return self, nil
	}
	if err := s.cfg.Removed(); err != nil {
		return "", err
	}
	if !c.Member.Has(api.RoleNode) {
		if err := s.cfg.Duplicated(); err != nil {
			return "", err
		}
	}
	to, ok := s.cfg.Leader()
	if (!ok || to == self) && r.at == leader && c.Via == "" {
		var leads bool
		if to, leads, ok = s.findLeader(ctx); leads {
			return self, nil
		}
	}
	switch {
	case !ok || to == self:
		return "", api.Errorf(api.KindUnavailable, "no leading anchor is known to this node").
			WithHint("what runs goes on running; try again when an anchor is back, or ask another node with --peer")
	case c.Via != "" || r.at == anchored:
		// The leader moved while the call was under way: the caller asks again.
		return "", api.Errorf(api.KindUnavailable, "this node does not lead, %s does", to)
	}
	return to, nil
}

// elsewhere is the error of a call that another node should have answered: its
// own word if there is one, otherwise that it cannot be reached.
func (s *Server) elsewhere(ctx context.Context, node api.NodeID, method string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err() // the caller's own end, or its own deadline
	}
	st, ok := status.FromError(err)
	if ok && len(st.Details()) == 0 && (st.Code() == codes.Unavailable || st.Code() == codes.DeadlineExceeded) {
		s.cfg.Log.Debug("a node cannot be reached", zap.String("peer", string(node)), zap.String("method", method), zap.Error(err))
		hint := "what runs goes on running; try again when it is back, or ask another node with --peer"
		if !reads(method) {
			hint = "what runs goes on running; look first whether the change was made, then try again when it is back, or ask another node with --peer"
		}
		return api.Errorf(api.KindUnavailable, "node %s cannot be reached", s.nodeName(node)).WithHint("%s", hint)
	}
	return wire.ErrorFromStatus(err)
}

// reads reports whether a method changes nothing.
func reads(method string) bool {
	_, name, _ := cutMethod(method)
	for _, verb := range []string{"List", "Get", "Watch", "Explain", "Diagnose", "Logs", "Backup"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}
