package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/cloudless-project/cloudless/internal/atomicfile"
)

// The files of a sealed authority, below the root given to Seal. A backup
// that holds only AuthorityFile gives nobody the key.
const (
	AuthorityFile = "ca.sealed"
	KEKFile       = "ca.kek"

	maxSealedFile = 64 << 10
)

// sealedAuthority is the content of AuthorityFile: the founding generation, and
// those that succeeded it.
type sealedAuthority struct {
	sealedGeneration
	Successors []sealedGeneration `json:"successors,omitempty"`
}

type sealedGeneration struct {
	Certificate []byte `json:"certificate"`   // DER
	Key         []byte `json:"key,omitempty"` // AEAD ciphertext of the PKCS #8 key, bound to the founding one
}

// Seal stores the authority below root: its keys encrypted with a keyset that
// lives in a file of its own, and is made on the first call. The keyset is on
// disk before the ciphertext that needs it.
func (a *Authority) Seal(root *os.Root) error {
	kek, err := loadKEK(root)
	if errors.Is(err, fs.ErrNotExist) {
		kek, err = createKEK(root)
	}
	if err != nil {
		return fmt.Errorf("seal authority: %w", err)
	}
	var sealed []sealedGeneration
	for i, cert := range a.lineage {
		key, err := sealKey(kek, a.keys[i], a.lineage[0])
		if err != nil {
			return fmt.Errorf("seal authority: %w", err)
		}
		sealed = append(sealed, sealedGeneration{Certificate: cert.Raw, Key: key})
	}
	raw, err := json.Marshal(sealedAuthority{sealed[0], sealed[1:]})
	if err != nil {
		return fmt.Errorf("seal authority: %w", err)
	}
	if err := atomicfile.Write(root, AuthorityFile, raw, secretPerms); err != nil {
		return fmt.Errorf("seal authority: %w", err)
	}
	return nil
}

// sealKey returns nil for a key that is not there.
func sealKey(kek tink.AEAD, key ed25519.PrivateKey, founding *x509.Certificate) ([]byte, error) {
	if key == nil {
		return nil, nil
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return kek.Encrypt(plain, sealContext(founding))
}

// OpenAuthority reads the authority that Seal stored below root; its founding
// generation issues until IssuingAs says otherwise. The error is fs.ErrNotExist
// when there is none.
func OpenAuthority(root *os.Root) (*Authority, error) {
	raw, err := readSecret(root, AuthorityFile, maxSealedFile)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	var sealed sealedAuthority
	if err := json.Unmarshal(raw, &sealed); err != nil {
		return nil, fmt.Errorf("open authority: parse %s: %w", AuthorityFile, err)
	}
	founding, err := ParseCA(sealed.Certificate, "")
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	kek, err := loadKEK(root)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	var generations []exportedGeneration
	for _, g := range append([]sealedGeneration{sealed.sealedGeneration}, sealed.Successors...) {
		e := exportedGeneration{Certificate: g.Certificate}
		if len(g.Key) > 0 {
			if e.Key, err = kek.Decrypt(g.Key, sealContext(founding)); err != nil {
				return nil, fmt.Errorf("open authority: %s does not fit %s: %w", KEKFile, AuthorityFile, err)
			}
			defer clear(e.Key)
		}
		generations = append(generations, e)
	}
	a, err := assemble(generations, "")
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	return a, nil
}

// sealContext binds a ciphertext to its purpose and cluster.
func sealContext(cert *x509.Certificate) []byte {
	return []byte("cloudless authority " + ClusterID(cert))
}

func createKEK(root *os.Root) (tink.AEAD, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make keyset: %w", err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewBinaryWriter(&buf)); err != nil {
		return nil, fmt.Errorf("write keyset: %w", err)
	}
	defer clear(buf.Bytes())
	if err := atomicfile.Write(root, KEKFile, buf.Bytes(), secretPerms); err != nil {
		return nil, err
	}
	return aead.New(handle)
}

func loadKEK(root *os.Root) (tink.AEAD, error) {
	raw, err := readSecret(root, KEKFile, maxSealedFile)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	handle, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	return aead.New(handle)
}
