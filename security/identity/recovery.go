package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// The recovery key opens the snapshots that ordinary nodes keep. They are
// backups whose key is sealed by HPKE, as a grant is, to the public half, which
// every anchor knows; the private half is shown once and is on paper, or in a
// safe, and in no machine of the cluster. So an anchor can seal without anybody
// typing, and neither it nor the node that keeps the snapshot can open it again.

const (
	recoveryPrefix   = "clr1."
	recoverySum      = 4 // bytes of checksum, against slips of the pen
	recoveryPrint    = 8 // bytes of a fingerprint
	maxSealedKey     = 256
	recoveryKeyBytes = 32
)

// RecoveryKey is the private half.
type RecoveryKey struct{ raw *ecdh.PrivateKey }

// NewRecoveryKey makes one.
func NewRecoveryKey() (*RecoveryKey, error) {
	raw, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make recovery key: %w", err)
	}
	return &RecoveryKey{raw}, nil
}

// LooksLikeRecoveryKey reports whether a text is meant to be one.
func LooksLikeRecoveryKey(text string) bool { return strings.HasPrefix(text, recoveryPrefix) }

// ParseRecoveryKey reads what String has written.
func ParseRecoveryKey(text string) (*RecoveryKey, error) {
	wrong := func(why string) error {
		return api.Invalid("recovery key", "%s", why).WithHint("it begins with %s and was shown by: cloudless anchor recovery-key", recoveryPrefix)
	}
	body, ok := strings.CutPrefix(strings.TrimSpace(text), recoveryPrefix)
	if !ok {
		return nil, wrong("does not begin like one")
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil || len(b) != recoveryKeyBytes+recoverySum {
		return nil, wrong("is not complete")
	}
	secret, sum := b[:recoveryKeyBytes], sha256.Sum256(b[:recoveryKeyBytes])
	if !bytes.Equal(sum[:recoverySum], b[recoveryKeyBytes:]) {
		return nil, wrong("has a wrong character in it")
	}
	raw, err := ecdh.X25519().NewPrivateKey(secret)
	if err != nil {
		return nil, wrong("is no key")
	}
	return &RecoveryKey{raw}, nil
}

// String returns the key as it is shown and stored.
func (k *RecoveryKey) String() string {
	secret := k.raw.Bytes()
	sum := sha256.Sum256(secret)
	return recoveryPrefix + base64.RawURLEncoding.EncodeToString(append(secret, sum[:recoverySum]...))
}

// Public returns the half that the cluster knows.
func (k *RecoveryKey) Public() []byte { return k.raw.PublicKey().Bytes() }

// RecoveryFingerprint tells public halves apart, for people.
func RecoveryFingerprint(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:recoveryPrint])
}

// CheckRecoveryPublic refuses what is no public half.
func CheckRecoveryPublic(public []byte) error {
	if _, err := ecdh.X25519().NewPublicKey(public); err != nil {
		return api.Invalid("public", "is no X25519 key: %v", err)
	}
	return nil
}

// SealTo makes a key for one backup, which it returns, and notes it in the
// header, sealed to the public half of a recovery key.
func (h *BackupHeader) SealTo(public []byte) (key []byte, err error) {
	raw, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("seal snapshot: %w", err)
	}
	to, err := hpke.NewDHKEMPublicKey(raw)
	if err != nil {
		return nil, fmt.Errorf("seal snapshot: %w", err)
	}
	key = make([]byte, BackupKeySize)
	_, _ = rand.Read(key) // never fails
	h.Recovery = RecoveryFingerprint(public)
	h.Sealed, err = hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), h.sealContext(), key)
	if err != nil {
		return nil, fmt.Errorf("seal snapshot: %w", err)
	}
	return key, nil
}

// Unseal returns the key of a backup that was sealed to this recovery key.
func (k *RecoveryKey) Unseal(h BackupHeader) ([]byte, error) {
	if own := RecoveryFingerprint(k.Public()); h.Recovery != own {
		return nil, api.Errorf(api.KindDenied, "the snapshot is sealed to recovery key %s, this is %s", h.Recovery, own).
			WithHint("use the recovery key that was in force when it was made")
	}
	if len(h.Sealed) > maxSealedKey {
		return nil, api.Invalid("snapshot", "its sealed key has %d bytes", len(h.Sealed))
	}
	key, err := hpke.NewDHKEMPrivateKey(k.raw)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	plain, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), h.sealContext(), h.Sealed)
	if err != nil {
		return nil, api.Errorf(api.KindDenied, "the snapshot cannot be opened with this recovery key: %w", err)
	}
	return plain, nil
}

func (h *BackupHeader) sealContext() []byte {
	return fmt.Appendf(nil, "cloudless snapshot %s %d %d", h.Cluster, h.Epoch, h.Index)
}
