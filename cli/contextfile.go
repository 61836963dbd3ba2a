package cli

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/atomicfile"
	"github.com/cloudless-project/cloudless/security/identity"
)

// configFile holds the contexts of one person, keys included: mode 0600.
const configFile = "config.yaml"

// maxConfig bounds the file, in bytes.
const maxConfig = 1 << 20

// contexts is the content of the file.
type contexts struct {
	Current  string           `yaml:"current,omitempty"`
	Contexts []*clusterAccess `yaml:"contexts"`
}

// clusterAccess is one context: a cluster, who the person is in it, and how to
// reach it.
type clusterAccess struct {
	Name        string     `yaml:"name"`
	Cluster     string     `yaml:"cluster"` // ID
	ClusterName string     `yaml:"cluster_name"`
	Operator    string     `yaml:"operator"`
	Roles       []api.Role `yaml:"roles"`
	Peers       []string   `yaml:"peers"`             // of anchors and relays: multiaddrs that end in /p2p/<peer-id>
	Others      []string   `yaml:"others,omitempty"`  // of some nodes that are neither, to ask when no anchor answers
	Learned     time.Time  `yaml:"learned,omitempty"` // when the two lists were asked for last
	CA          string     `yaml:"ca"`                // PEM
	Certificate string     `yaml:"certificate"`
	Key         string     `yaml:"key"`
}

// configDir returns where the directory of the file is, or would be.
func configDir() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the home directory: %w", err)
	}
	return filepath.Join(home, ".config", "cloudless"), nil
}

// loadContexts returns the contexts of this person, none when there are none,
// and makes nothing: most commands that look for them are of machines without.
func loadContexts() (*contexts, error) {
	where, err := configDir()
	if err != nil {
		return &contexts{}, nil // who has no home has no contexts
	}
	dir, err := os.OpenRoot(where)
	if errors.Is(err, fs.ErrNotExist) {
		return &contexts{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	defer dir.Close()
	info, err := dir.Stat(configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &contexts{}, nil
	}
	path := filepath.Join(where, configFile)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read contexts: %w", err)
	case info.Size() > maxConfig:
		return nil, api.Errorf(api.KindInvalid, "%s is larger than %s", path, size(maxConfig))
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return nil, api.Errorf(api.KindDenied, "%s holds your keys, and others can read it", path).WithHint("chmod 600 %s", path)
	}
	text, err := dir.ReadFile(configFile)
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	var c contexts
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&c); err != nil {
		return nil, api.Errorf(api.KindInvalid, "%s is damaged: %v", path, err).WithHint("mend it, or remove it and log in again")
	}
	return &c, nil
}

// save replaces the file, and makes its directory when there is none yet.
func (c *contexts) save() error {
	text, err := yaml.MarshalWithOptions(c, yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	where, err := configDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(where, 0o700); err != nil {
		return fmt.Errorf("make the directory of contexts: %w", err)
	}
	dir, err := os.OpenRoot(where)
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	defer dir.Close()
	return atomicfile.Write(dir, configFile, text, 0o600)
}

// find returns the context of a name.
func (c *contexts) find(name string) (*clusterAccess, error) {
	for _, access := range c.Contexts {
		if access.Name == name {
			return access, nil
		}
	}
	return nil, api.Errorf(api.KindNotFound, "there is no context %q", name).
		WithHint("see \"cloudless context list\"; \"cloudless login\" makes one")
}

// put adds a context, or replaces the one of its name.
func (c *contexts) put(access *clusterAccess) {
	i := slices.IndexFunc(c.Contexts, func(a *clusterAccess) bool { return a.Name == access.Name })
	if i < 0 {
		c.Contexts = append(c.Contexts, access)
		return
	}
	c.Contexts[i] = access
}

// The types of PEM blocks in the file.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// certificatePEM encodes a certificate, and those of its issuers that may follow
// it, one block each.
func certificatePEM(der []byte) (string, error) {
	certs, err := x509.ParseCertificates(der)
	if err != nil {
		return "", fmt.Errorf("encode certificate: %w", err)
	}
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	return string(text), nil
}

// certificateDER is the inverse of certificatePEM, nil for what it has not made.
func certificateDER(text string) []byte {
	var der []byte
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return der
		}
		der = append(der, block.Bytes...)
	}
}

func keyPEM(key ed25519.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})), nil
}

// credentials are a context's certificates and key, decoded.
type credentials struct {
	trust       identity.Trust
	certificate *x509.Certificate
	shown       []byte // to peers: certificate and its issuers
	key         ed25519.PrivateKey
}

func (a *clusterAccess) credentials() (credentials, error) {
	damaged := api.Errorf(api.KindInvalid, "the context %s is damaged", a.Name).WithHint("log in again with \"cloudless login\"")
	ca, certificate := certificateDER(a.CA), certificateDER(a.Certificate)
	key, _ := pem.Decode([]byte(a.Key))
	if ca == nil || certificate == nil || key == nil {
		return credentials{}, damaged
	}
	founding, err := identity.ParseCA(ca, a.Cluster)
	if err != nil {
		return credentials{}, damaged
	}
	c := credentials{shown: certificate}
	if c.trust, err = identity.TrustIn(founding).WithOwn(certificate); err != nil {
		return credentials{}, damaged
	}
	if c.certificate, err = identity.Leaf(certificate); err != nil {
		return credentials{}, damaged
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	private, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return credentials{}, damaged
	}
	c.key = private
	return c, nil
}
