package control

import (
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// A removed node has no friends to speak for: whom a call is made for is the
// carrier's word alone.
func TestARemovedNodeCarriesNoCalls(t *testing.T) {
	s := follower(t, nil)
	s.cfg.Standing = func(m api.Member, _ bool) error {
		if m.ID == "gone" {
			return api.Errorf(api.KindDenied, "it was removed")
		}
		return nil
	}
	operator := &Caller{Member: member("op", api.RoleOperator), UID: -1}
	for carrier, want := range map[string]api.Kind{"gone": api.KindDenied, "n3": api.KindUnavailable} {
		err := listNodes(calling(t, member(carrier, api.RoleNode), -1, operator), s)
		if api.KindOf(err) != want {
			t.Errorf("carried by %s: %v, want %s", carrier, err, want)
		}
	}
}
