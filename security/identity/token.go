package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// Why a text is not a usable join token. ParseToken returns *api.Error values
// that wrap exactly one of them.
var (
	ErrTokenTruncated = errors.New("token is cut short")
	ErrTokenMalformed = errors.New("token is malformed")
	ErrTokenVersion   = errors.New("token has an unsupported version")
)

const (
	tokenPrefix    = "cl1."
	maxTokenText   = 4 << 10 // characters
	maxTokenAddrs  = 32
	maxTokenField  = 512 // bytes of one address, ID or role
	tokenIDBytes   = 5
	checksumBytes  = 4
	tokenLenBytes  = 2
	tokenOverheads = tokenLenBytes + checksumBytes
)

var tokenVersion = regexp.MustCompile(`^cl[0-9]+\.`)

// Token is an invitation into a cluster. Whoever holds it can use it; the
// cluster keeps only Hash.
type Token struct {
	Cluster string   // cluster ID: pins the authority
	Anchors []string // multiaddrs that end in /p2p/<peer-id>: pins who may see the secret
	ID      string   // names the cluster's record of it
	Secret  [32]byte
	Role    api.Role
}

// NewToken makes a token with a fresh ID and secret.
func NewToken(cluster string, anchors []string, role api.Role) (Token, error) {
	t := Token{Cluster: cluster, Anchors: anchors, Role: role}
	var id [tokenIDBytes]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	if _, err := rand.Read(t.Secret[:]); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	t.ID = base32Lower.EncodeToString(id[:])
	if _, err := ParseToken(t.String()); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	return t, nil
}

// Hash returns the SHA-256 of the secret.
func (t Token) Hash() []byte {
	sum := sha256.Sum256(t.Secret[:])
	return sum[:]
}

// String returns the text form: "cl1." and the base64url of
//
//	length of the body (2 bytes) · body · first 4 bytes of its SHA-256
//
// The length tells a truncated token from a mistyped one. The body is the
// secret and then length-prefixed fields; addresses are in binary form, which
// nearly halves the text that people have to copy.
func (t Token) String() string {
	body := bytes.Clone(t.Secret[:])
	body = appendField(body, []byte(t.Cluster))
	body = appendField(body, []byte(t.ID))
	body = appendField(body, []byte(t.Role))
	for _, anchor := range t.Anchors {
		addr, err := multiaddr.NewMultiaddr(anchor)
		if err != nil {
			return "" // NewToken and ParseToken never let one pass
		}
		body = appendField(body, addr.Bytes())
	}
	out := binary.BigEndian.AppendUint16(nil, uint16(len(body)))
	out = append(out, body...)
	out = append(out, checksum(body)...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(out)
}

// GoString hides the secret from %#v; String is the secret's own text, so a
// token must not be logged at all.
func (t Token) GoString() string { return "identity.Token{ID:" + t.ID + "}" }

// ParseToken reads the text form. White space around and within is ignored:
// terminals and mail programs wrap long lines.
func ParseToken(text string) (Token, error) {
	if len(text) > maxTokenText {
		return Token{}, tokenError(ErrTokenMalformed, "it has %d characters, at most %d are allowed", len(text), maxTokenText)
	}
	text = strings.Join(strings.Fields(text), "")
	coded, ok := strings.CutPrefix(text, tokenPrefix)
	switch {
	case ok:
	case tokenVersion.MatchString(text):
		return Token{}, tokenError(ErrTokenVersion, "it starts with %q, this program knows %q", tokenVersion.FindString(text), tokenPrefix)
	case strings.HasPrefix(tokenPrefix, text):
		return Token{}, tokenError(ErrTokenTruncated, "it has %d characters", len(text))
	default:
		return Token{}, tokenError(ErrTokenMalformed, "it does not start with %q", tokenPrefix)
	}
	body, err := tokenBody(coded)
	if err != nil {
		return Token{}, err
	}
	return decodeToken(body)
}

func tokenBody(coded string) ([]byte, error) {
	whole := coded
	if len(coded)%4 == 1 { // no base64 text has this length
		coded = coded[:len(coded)-1]
	}
	raw, err := base64.RawURLEncoding.DecodeString(coded)
	if err != nil {
		return nil, tokenError(ErrTokenMalformed, "it holds characters that no token has")
	}
	if len(raw) < tokenOverheads || len(raw) < tokenOverheads+int(binary.BigEndian.Uint16(raw)) {
		return nil, tokenError(ErrTokenTruncated, "its end is missing")
	}
	size := int(binary.BigEndian.Uint16(raw))
	if len(raw) != tokenOverheads+size || whole != coded {
		return nil, tokenError(ErrTokenMalformed, "something was added at its end")
	}
	body, sum := raw[tokenLenBytes:tokenLenBytes+size], raw[tokenLenBytes+size:]
	if !bytes.Equal(sum, checksum(body)) {
		return nil, tokenError(ErrTokenMalformed, "its checksum does not fit, so a character was changed")
	}
	return body, nil
}

func decodeToken(body []byte) (Token, error) {
	var t Token
	if len(body) < len(t.Secret) {
		return Token{}, tokenError(ErrTokenMalformed, "it holds no secret")
	}
	rest := body[copy(t.Secret[:], body):]
	fields := make([]string, 3)
	for i := range fields {
		field, after, ok := cutField(rest)
		if !ok || len(field) == 0 {
			return Token{}, tokenError(ErrTokenMalformed, "a field is missing")
		}
		fields[i], rest = string(field), after
	}
	t.Cluster, t.ID, t.Role = fields[0], fields[1], api.Role(fields[2])
	for len(rest) > 0 {
		field, after, ok := cutField(rest)
		if !ok || len(t.Anchors) == maxTokenAddrs {
			return Token{}, tokenError(ErrTokenMalformed, "its addresses cannot be read")
		}
		anchor, err := anchorAddress(field)
		if err != nil {
			return Token{}, err
		}
		t.Anchors, rest = append(t.Anchors, anchor), after
	}
	if err := t.check(); err != nil {
		return Token{}, err
	}
	return t, nil
}

func (t Token) check() error {
	if raw, err := base32Lower.DecodeString(t.Cluster); err != nil || len(raw) != clusterIDBytes {
		return tokenError(ErrTokenMalformed, "it names no cluster")
	}
	if len(t.Anchors) == 0 {
		return tokenError(ErrTokenMalformed, "it names no anchor")
	}
	switch t.Role {
	case api.RoleNode, api.RoleAnchor, api.RoleOperator, api.RoleViewer:
		return nil
	}
	return tokenError(ErrTokenMalformed, "its role %q is unknown", t.Role)
}

// anchorAddress reads a binary multiaddr that must end in the PeerID of an
// Ed25519 key: without it the joiner could not tell whom it talks to.
func anchorAddress(raw []byte) (string, error) {
	addr, err := multiaddr.NewMultiaddrBytes(raw)
	if err != nil {
		return "", tokenError(ErrTokenMalformed, "one of its addresses cannot be read")
	}
	_, last := multiaddr.SplitLast(addr)
	if last == nil || last.Protocol().Code != multiaddr.P_P2P {
		return "", tokenError(ErrTokenMalformed, "address %s does not end in /p2p/<peer-id>", addr)
	}
	if _, err := PublicKey(api.NodeID(last.Value())); err != nil {
		return "", tokenError(ErrTokenMalformed, "address %s does not end in the PeerID of an Ed25519 key", addr)
	}
	return addr.String(), nil
}

// SecretMatches reports whether a secret, as a joiner sent it, is the one whose
// hash the cluster keeps; it takes the same time for every wrong one.
func SecretMatches(secret, hash []byte) bool {
	sum := sha256.Sum256(secret)
	return subtle.ConstantTimeCompare(sum[:], hash) == 1
}

func appendField(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > maxTokenField || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	end := used + int(n)
	return b[used:end], b[end:], true
}

func checksum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:checksumBytes]
}

func tokenError(kind error, format string, args ...any) error {
	return api.Errorf(api.KindInvalid, "%w: %s", kind, fmt.Sprintf(format, args...)).
		WithHint("copy the whole token again, or make a new one: cloudless token create")
}
