package state

import (
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func redeem(tok api.Token, peer api.NodeID, now time.Time) RedeemToken {
	return RedeemToken{ID: tok.ID, SecretHash: tok.SecretHash, Peer: peer, Now: now}
}

func TestTokenIsUsedUp(t *testing.T) {
	c := newCluster(t)
	tok := token("t", 2)
	c.must(PutToken{Token: tok, Now: epoch})
	c.refuse(api.KindExists, PutToken{Token: tok, Now: epoch})
	got, ok := ValueOf[api.Token](c.must(redeem(tok, "a", epoch)))
	if !ok || got.Role != api.RoleNode || got.Uses != 1 {
		t.Errorf("redeemed %+v", got)
	}
	if res := c.must(redeem(tok, "a", epoch)); len(res.Events) != 0 { // its answer was lost
		t.Errorf("the same peer used it twice: %s", codes(res.Events))
	}
	c.must(redeem(tok, "b", epoch))
	c.refuse(api.KindDenied, redeem(tok, "c", epoch))
	c.must(redeem(tok, "b", epoch))
}

func TestTokenIsRefused(t *testing.T) {
	c := newCluster(t)
	tok := token("t", 5)
	c.must(PutToken{Token: tok, Now: epoch})
	wrong := tok
	wrong.SecretHash = token("other", 1).SecretHash
	c.refuse(api.KindDenied, redeem(wrong, "a", epoch))
	c.refuse(api.KindDenied, redeem(token("unknown", 1), "a", epoch))
	c.refuse(api.KindDenied, redeem(tok, "a", tok.ExpiresAt))
	c.refuse(api.KindInvalid, redeem(tok, "", epoch))
	c.must(RevokeToken{ID: "t", Now: epoch})
	c.refuse(api.KindDenied, redeem(tok, "a", epoch))
	c.refuse(api.KindNotFound, RevokeToken{ID: "t", Now: epoch})
}

func TestExpiredTokensAreDropped(t *testing.T) {
	c := newCluster(t)
	tok := token("old", 1)
	c.must(PutToken{Token: tok, Now: epoch}, redeem(tok, "a", epoch))
	later := tok.ExpiresAt.Add(tokenMemory + time.Second)
	fresh := token("fresh", 1)
	fresh.ExpiresAt = later.Add(time.Minute)
	c.must(PutToken{Token: fresh, Now: later})
	if toks := c.View().Tokens(); len(toks) != 1 || toks[0].ID != "fresh" {
		t.Errorf("tokens %+v", toks)
	}
	if uses := redemptions.all(c.View().txn); len(uses) != 0 {
		t.Errorf("redemptions %+v", uses)
	}
}

func TestTokenIsValidated(t *testing.T) {
	for name, spoil := range map[string]func(*api.Token){
		"no id":         func(t *api.Token) { t.ID = "" },
		"unknown role":  func(t *api.Token) { t.Role = "king" },
		"short hash":    func(t *api.Token) { t.SecretHash = t.SecretHash[:31] },
		"no uses":       func(t *api.Token) { t.Uses = 0 },
		"too many uses": func(t *api.Token) { t.Uses = MaxTokenUses + 1 },
		"expired":       func(t *api.Token) { t.ExpiresAt = epoch },
	} {
		tok := token("t", 1)
		spoil(&tok)
		if res := New().Apply(1, []Command{PutToken{Token: tok, Now: epoch}}); api.KindOf(res.Err) != api.KindInvalid {
			t.Errorf("%s: %v", name, res.Err)
		}
	}
}
