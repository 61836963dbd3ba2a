package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"

	"github.com/cloudless-project/cloudless/api"
)

// A grant carries the authority to a node that becomes an anchor, sealed by
// HPKE (RFC 9180: X25519, HKDF-SHA256, AES-256-GCM) to a key that the node made
// for this one purpose and keeps in memory. It is bound to the cluster and to
// the node, whose connection has proved who it is.

// maxGrant bounds a sealed authority, in bytes.
const maxGrant = 64 << 10

// GrantKey receives one grant.
type GrantKey struct{ key hpke.PrivateKey }

// NewGrantKey makes a key, and returns the public part to send.
func NewGrantKey() (*GrantKey, []byte, error) {
	raw, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make grant key: %w", err)
	}
	key, err := hpke.NewDHKEMPrivateKey(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("make grant key: %w", err)
	}
	return &GrantKey{key}, raw.PublicKey().Bytes(), nil
}

// Grant seals the authority to the key of a node.
func (a *Authority) Grant(public []byte, to api.NodeID) ([]byte, error) {
	raw, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "the key to seal to is not an X25519 key: %w", err)
	}
	key, err := hpke.NewDHKEMPublicKey(raw)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "the key to seal to cannot be used: %w", err)
	}
	plain, err := a.export()
	if err != nil {
		return nil, fmt.Errorf("grant authority: %w", err)
	}
	defer clear(plain)
	return hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), grantContext(a.ClusterID(), to), plain)
}

// Open returns the authority of a cluster that was granted to a node.
func (k *GrantKey) Open(sealed []byte, cluster string, to api.NodeID) (*Authority, error) {
	if len(sealed) > maxGrant {
		return nil, api.Errorf(api.KindInvalid, "a granted authority of %d bytes is too large", len(sealed))
	}
	plain, err := hpke.Open(k.key, hpke.HKDFSHA256(), hpke.AES256GCM(), grantContext(cluster, to), sealed)
	if err != nil {
		return nil, api.Errorf(api.KindDenied, "the granted authority is not for this node: %w", err)
	}
	defer clear(plain)
	return importAuthority(plain, cluster)
}

func grantContext(cluster string, to api.NodeID) []byte {
	return []byte("cloudless grant " + cluster + " " + string(to))
}

// exported is an authority in the clear: only ever the content of something
// sealed.
type exported struct {
	exportedGeneration                      // the founding one
	Successors         []exportedGeneration `json:"successors,omitempty"`
	Issuer             int                  `json:"issuer,omitempty"` // generation; 0 is the founding one
}

type exportedGeneration struct {
	Certificate []byte `json:"certificate"`   // DER
	Key         []byte `json:"key,omitempty"` // PKCS #8
}

func (a *Authority) export() ([]byte, error) {
	var all []exportedGeneration
	for i, cert := range a.lineage {
		e := exportedGeneration{Certificate: cert.Raw}
		if a.keys[i] != nil {
			key, err := x509.MarshalPKCS8PrivateKey(a.keys[i])
			if err != nil {
				return nil, err
			}
			defer clear(key)
			e.Key = key
		}
		all = append(all, e)
	}
	return json.Marshal(exported{all[0], all[1:], a.Issuer()})
}

// importAuthority is the inverse of export, for the authority of one cluster.
func importAuthority(plain []byte, cluster string) (*Authority, error) {
	var e exported
	if err := json.Unmarshal(plain, &e); err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	generations := append([]exportedGeneration{e.exportedGeneration}, e.Successors...)
	for _, g := range generations {
		defer clear(g.Key)
	}
	a, err := assemble(generations, cluster)
	if err != nil || e.Issuer == 0 {
		return a, err
	}
	return a.IssuingAs(e.Issuer)
}

// assemble makes an authority of its generations, founding one first.
func assemble(generations []exportedGeneration, cluster string) (*Authority, error) {
	if len(generations) > MaxAuthorities {
		return nil, fmt.Errorf("read authority: it has %d generations, at most %d are allowed", len(generations), MaxAuthorities)
	}
	founding, err := ParseCA(generations[0].Certificate, cluster)
	if err != nil {
		return nil, err
	}
	lineage := make([][]byte, len(generations))
	for i, g := range generations {
		lineage[i] = g.Certificate
	}
	trust, err := TrustIn(founding).With(lineage, 1)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	a := &Authority{lineage: trust.lineage, keys: make([]ed25519.PrivateKey, len(generations))}
	for i, g := range generations {
		if len(g.Key) == 0 {
			continue
		}
		parsed, err := x509.ParsePKCS8PrivateKey(g.Key)
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		key, ok := parsed.(ed25519.PrivateKey)
		if !ok || !key.Public().(ed25519.PublicKey).Equal(a.lineage[i].PublicKey) {
			return nil, fmt.Errorf("read authority: the key is not that of its certificate")
		}
		a.keys[i] = key
	}
	return a, nil
}
