package api

import "time"

// Token is the cluster's record of a join token. The secret itself is shown
// once, to the one who created it; the cluster keeps its hash.
type Token struct {
	ID         string    `json:"id"`
	Role       Role      `json:"role"`
	SecretHash []byte    `json:"secret_hash,omitempty"` // SHA-256
	CreatedAt  time.Time `json:"created_at"`
	CreatedBy  string    `json:"created_by"`
	ExpiresAt  time.Time `json:"expires_at"`
	Uses       int       `json:"uses"` // left
	Version    uint64    `json:"version"`
}

// Revocation kills an identity: its certificates, connections and streams.
type Revocation struct {
	ID        string    `json:"id"` // PeerID
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
	Signature []byte    `json:"signature,omitempty"` // of the cluster's authority: any member may pass it on
}

// Cluster is the record that the first node writes, once.
type Cluster struct {
	ID        string    `json:"id"` // hash of the founding CA's public key
	Name      string    `json:"name"`
	CA        []byte    `json:"ca"` // DER certificate of the founding authority
	CreatedAt time.Time `json:"created_at"`
	Version   uint64    `json:"version"`
	// Epoch tells the anchors that count from those that a restored backup has put
	// out of office: the highest counts. It is 0 until the first restore, and then
	// the time of the last one in Unix seconds.
	Epoch uint64 `json:"epoch,omitempty"`
	// RecoveryKey is the public key (X25519) to which the snapshots are sealed that
	// ordinary nodes keep; its other half is on paper. Empty: no snapshots.
	RecoveryKey []byte `json:"recovery_key,omitempty"`
	// Authorities are the generations of the CA once it has changed: CA first, and
	// those that succeeded it. See Generations.
	Authorities []Authority `json:"authorities,omitempty"`
}
