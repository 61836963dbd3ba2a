package state

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// tokenMemory is how long a token is remembered after it ran out, so that a
// late joiner is told "expired" and not "unknown".
const tokenMemory = time.Hour

// redemption remembers who used a token, so that a joiner whose answer was
// lost can ask again without using it twice.
type redemption struct {
	Token string     `json:"token"`
	Peer  api.NodeID `json:"peer"`
}

// PutToken records a new join token. Its value is the api.Token.
type PutToken struct {
	Token api.Token `json:"token"`
	Now   time.Time `json:"now"`
}

func (c PutToken) apply(t *tx) (any, error) {
	t.dropExpiredTokens(c.Now)
	row := c.Token
	if err := checkToken(row, c.Now); err != nil {
		return nil, err
	}
	if tokens.get(t.txn, row.ID) != nil {
		return nil, api.Errorf(api.KindExists, "there is a token %s already", row.ID)
	}
	if len(tokens.all(t.txn)) >= MaxTokens {
		return nil, api.Errorf(api.KindExhausted, "there are %d tokens already", MaxTokens).
			WithHint("revoke some, or give them a shorter life")
	}
	row.CreatedAt, row.Version = c.Now, t.index
	tokens.put(t, &row)
	t.event(api.CodeTokenCreated, c.Now, "TokenCreated", api.Object{Kind: "token", Name: row.ID}, "",
		"token %s for the role %s was created by %s", row.ID, row.Role, row.CreatedBy)
	return row, nil
}

func checkToken(row api.Token, now time.Time) error {
	if err := checkID("id", row.ID); err != nil {
		return err
	}
	switch row.Role {
	case api.RoleNode, api.RoleAnchor, api.RoleOperator, api.RoleViewer:
	default:
		return api.Invalid("role", "%q is not a role", clip(string(row.Role)))
	}
	if len(row.SecretHash) != sha256.Size {
		return api.Invalid("secret_hash", "want %d bytes, got %d", sha256.Size, len(row.SecretHash))
	}
	if row.Uses < 1 || row.Uses > MaxTokenUses {
		return api.Invalid("uses", "%d is not between 1 and %d", row.Uses, MaxTokenUses)
	}
	if !row.ExpiresAt.After(now) {
		return api.Invalid("expires_at", "the token would be expired from the start")
	}
	return nil
}

// RevokeToken forgets a token; nobody can join with it any more.
type RevokeToken struct {
	ID  string    `json:"id"`
	Now time.Time `json:"now"`
}

func (c RevokeToken) apply(t *tx) (any, error) {
	row := tokens.get(t.txn, c.ID)
	if row == nil {
		return nil, notFound("token", c.ID)
	}
	t.dropToken(row)
	t.event(api.CodeTokenRevoked, c.Now, "TokenRevoked", api.Object{Kind: "token", Name: c.ID}, "",
		"token %s was revoked", c.ID)
	return nil, nil
}

// RedeemToken uses a token up by one for a joining peer. Its value is the
// api.Token as it is now. The same peer may redeem a token again.
type RedeemToken struct {
	ID         string     `json:"id"`
	SecretHash []byte     `json:"secret_hash"`
	Peer       api.NodeID `json:"peer"`
	Now        time.Time  `json:"now"`
}

func (c RedeemToken) apply(t *tx) (any, error) {
	if err := checkID("peer", string(c.Peer)); err != nil {
		return nil, err
	}
	old := tokens.get(t.txn, c.ID)
	if old == nil || !bytes.Equal(old.SecretHash, c.SecretHash) {
		return nil, refusedToken("the token is not known here, or was revoked")
	}
	if !c.Now.Before(old.ExpiresAt) {
		return nil, refusedToken("the token expired at %s", old.ExpiresAt.UTC().Format(time.RFC3339))
	}
	use := redemption{c.ID, c.Peer}
	if redemptions.get(t.txn, pair(use.Token, string(use.Peer))) != nil {
		return *old, nil
	}
	if old.Uses < 1 {
		return nil, refusedToken("the token has been used as often as it may")
	}
	row := *old
	row.Uses--
	row.Version = t.index
	tokens.put(t, &row)
	redemptions.put(t, &use)
	t.event(api.CodeTokenUsed, c.Now, "TokenUsed", api.Object{Kind: "token", Name: c.ID}, c.Peer,
		"token %s was used by %s", c.ID, c.Peer)
	return row, nil
}

func refusedToken(format string, args ...any) error {
	return api.Errorf(api.KindDenied, format, args...).
		WithHint("make a new one with: cloudless token create")
}

func (t *tx) dropExpiredTokens(now time.Time) {
	for _, row := range tokens.all(t.txn) {
		if now.Sub(row.ExpiresAt) > tokenMemory {
			t.dropToken(row)
		}
	}
}

func (t *tx) dropToken(row *api.Token) {
	tokens.delete(t, row)
	for _, use := range redemptions.list(t.txn, "id", pair(row.ID, "")) {
		redemptions.delete(t, use)
	}
}
