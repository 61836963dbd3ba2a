package state

import "github.com/cloudless-project/cloudless/api"

// revocation is a revoked identity and the index at which it was revoked, by
// which the oldest one makes room when the ring is full.
type revocation struct {
	api.Revocation
	Index uint64 `json:"index"`
}

func (t *tx) revoke(r api.Revocation) {
	rows := revocations.list(t.txn, "age", "")
	if len(rows) >= MaxRevocations {
		revocations.delete(t, rows[0])
	}
	revocations.put(t, &revocation{r, t.index})
}
