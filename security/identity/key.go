package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/mr-tron/base58"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/atomicfile"
)

const (
	keyPEM      = "PRIVATE KEY"
	maxKeyFile  = 4 << 10
	maxNodeID   = 64 // characters; an Ed25519 PeerID has 52
	secretPerms = 0o600
)

// peerIDPrefix starts the PeerID of every Ed25519 key: an identity multihash
// (0x00) of 36 bytes, which are the protobuf {type: Ed25519, data: 32 bytes}.
var peerIDPrefix = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// LoadOrCreateKey returns the Ed25519 key in the file name below root, and
// makes one on the first call. It refuses a key that others on this machine
// can read, because then the device's identity is theirs as well.
func LoadOrCreateKey(root *os.Root, name string) (ed25519.PrivateKey, error) {
	raw, err := readSecret(root, name, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return createKey(root, name)
	}
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != keyPEM {
		return nil, fmt.Errorf("load key: %s is not a PEM private key", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load key: parse %s: %w", name, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("load key: %s holds a %T, want an Ed25519 key", name, parsed)
	}
	return key, nil
}

func createKey(root *os.Root, name string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("create key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: keyPEM, Bytes: der})
	if err := atomicfile.Write(root, name, text, secretPerms); err != nil {
		return nil, fmt.Errorf("create key: %w", err)
	}
	return key, nil
}

// readSecret reads a file of at most limit bytes that nobody but its owner may
// read. Windows has no such mode bits; there the data directory's ACL decides.
func readSecret(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, api.Errorf(api.KindDenied, "%s can be read by others (mode %v)", name, info.Mode().Perm()).
			WithHint("chmod 600 it if nobody else has read it; otherwise remove it and enrol this device anew")
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return raw, nil
}

// NodeID returns the libp2p PeerID of a key in its text form.
func NodeID(pub ed25519.PublicKey) api.NodeID {
	return api.NodeID(base58.Encode(append(bytes.Clone(peerIDPrefix), pub...)))
}

// PublicKey returns the key that a NodeID stands for. An Ed25519 PeerID
// contains its key, so nothing has to be looked up.
func PublicKey(id api.NodeID) (ed25519.PublicKey, error) {
	if len(id) > maxNodeID {
		return nil, api.Errorf(api.KindInvalid, "a PeerID of %d characters is too long", len(id))
	}
	raw, err := base58.Decode(string(id))
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "%q is not a PeerID: %w", id, err)
	}
	key, ok := bytes.CutPrefix(raw, peerIDPrefix)
	if !ok || len(key) != ed25519.PublicKeySize {
		return nil, api.Errorf(api.KindInvalid, "%q is not the PeerID of an Ed25519 key", id)
	}
	return ed25519.PublicKey(key), nil
}
