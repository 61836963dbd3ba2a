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

// sealedAuthority is the content of AuthorityFile.
type sealedAuthority struct {
	Certificate []byte `json:"certificate"` // DER
	Key         []byte `json:"key"`         // AEAD ciphertext of the PKCS #8 key, bound to the cluster ID
}

// Seal stores the authority below root: its key encrypted with a keyset that
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
	plain, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("seal authority: %w", err)
	}
	defer clear(plain)
	key, err := kek.Encrypt(plain, sealContext(a.cert))
	if err != nil {
		return fmt.Errorf("seal authority: %w", err)
	}
	raw, err := json.Marshal(sealedAuthority{Certificate: a.cert.Raw, Key: key})
	if err != nil {
		return fmt.Errorf("seal authority: %w", err)
	}
	if err := atomicfile.Write(root, AuthorityFile, raw, secretPerms); err != nil {
		return fmt.Errorf("seal authority: %w", err)
	}
	return nil
}

// OpenAuthority reads the authority that Seal stored below root. The error is
// fs.ErrNotExist when there is none.
func OpenAuthority(root *os.Root) (*Authority, error) {
	raw, err := readSecret(root, AuthorityFile, maxSealedFile)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	var sealed sealedAuthority
	if err := json.Unmarshal(raw, &sealed); err != nil {
		return nil, fmt.Errorf("open authority: parse %s: %w", AuthorityFile, err)
	}
	cert, err := ParseCA(sealed.Certificate, "")
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	kek, err := loadKEK(root)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	plain, err := kek.Decrypt(sealed.Key, sealContext(cert))
	if err != nil {
		return nil, fmt.Errorf("open authority: %s does not fit %s: %w", KEKFile, AuthorityFile, err)
	}
	defer clear(plain)
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok || !key.Public().(ed25519.PublicKey).Equal(cert.PublicKey) {
		return nil, fmt.Errorf("open authority: the sealed key is not that of its certificate")
	}
	return &Authority{cert: cert, key: key}, nil
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
