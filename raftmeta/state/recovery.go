package state

import (
	"bytes"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// recoveryKeySize is that of an X25519 public key, in bytes.
const recoveryKeySize = 32

// SetRecoveryKey decides to which key the snapshots are sealed that ordinary
// nodes keep. One that is there is replaced only when that is asked for: what is
// on paper would open nothing any more. Its value is the api.Cluster.
type SetRecoveryKey struct {
	Public  []byte    `json:"public"`
	Replace bool      `json:"replace"`
	Now     time.Time `json:"now"`
}

func (c SetRecoveryKey) apply(t *tx) (any, error) {
	if len(c.Public) != recoveryKeySize {
		return nil, api.Invalid("public", "has %d bytes, not %d", len(c.Public), recoveryKeySize)
	}
	rows := clusters.all(t.txn)
	if len(rows) == 0 {
		return nil, notFound("cluster", "")
	}
	cluster := *rows[0]
	switch {
	case bytes.Equal(cluster.RecoveryKey, c.Public):
		return cluster, nil
	case len(cluster.RecoveryKey) > 0 && !c.Replace:
		return nil, api.Errorf(api.KindExists, "the cluster has a recovery key").
			WithHint("replace it with: cloudless anchor recovery-key --replace; the old one opens older snapshots alone then")
	}
	cluster.RecoveryKey, cluster.Version = c.Public, t.index
	clusters.put(t, &cluster)
	t.event(api.CodeRecoveryKeySet, c.Now, "RecoveryKeySet", api.Object{Kind: "cluster", Name: cluster.Name}, "",
		"the snapshots of cluster %s are sealed to another recovery key from now on", cluster.Name)
	return cluster, nil
}
