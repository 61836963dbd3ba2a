package node

import (
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// TestLostVoterIsReplaced: one of three voters goes away for longer than the
// cluster waits. A fourth anchor gets its vote, and when it comes back it is one
// without a vote.
func TestLostVoterIsReplaced(t *testing.T) {
	t.Parallel()
	a, b, c := threeAnchors(t, func(cfg *Config) {
		cfg.Anchors.ReplaceAfter = 2 * time.Second
		cfg.Liveness = liveness.Config{PauseGrace: time.Second}
	})
	d := newDevice(t, "d")
	join := a.token(api.RoleNode)
	d.start(func(cfg *Config) { cfg.Join, cfg.Anchor = join, "always" })
	a.standings(map[string]api.AnchorStanding{"a": api.AnchorVoter, "b": api.AnchorVoter, "c": api.AnchorVoter, "d": api.AnchorStandby})

	c.shutdown()
	b.standings(map[string]api.AnchorStanding{"a": api.AnchorVoter, "b": api.AnchorVoter, "d": api.AnchorVoter})

	c.start(nil)
	d.standings(map[string]api.AnchorStanding{"a": api.AnchorVoter, "b": api.AnchorVoter, "c": api.AnchorStandby, "d": api.AnchorVoter})
}
