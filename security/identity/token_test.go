package identity

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

func newToken(t testing.TB) Token {
	t.Helper()
	id := string(nodeOf(newKey(t)))
	tok, err := NewToken(newAuthority(t).ClusterID(), []string{
		"/ip4/192.0.2.7/udp/4001/quic-v1/p2p/" + id,
		"/dns4/vps.example.org/tcp/4001/p2p/" + id,
	}, api.RoleNode)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenRoundTrip(t *testing.T) {
	want := newToken(t)
	text := want.String()
	wrapped := " " + text[:40] + "\n  " + text[40:] + "\r\n"
	for _, in := range []string{text, wrapped} {
		got, err := ParseToken(in)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %#v, want %#v", got, want)
		}
	}
	if !SecretMatches(want.Secret[:], want.Hash()) || SecretMatches(make([]byte, 32), want.Hash()) {
		t.Error("the hash does not tell the secret")
	}
}

func TestEveryTruncationIsToldAsOne(t *testing.T) {
	text := newToken(t).String()
	for n := range len(text) {
		if _, err := ParseToken(text[:n]); !errors.Is(err, ErrTokenTruncated) {
			t.Fatalf("first %d of %d characters: %v", n, len(text), err)
		}
	}
}

func TestTokenErrors(t *testing.T) {
	text := newToken(t).String()
	flip := "A"
	if text[60] == 'A' {
		flip = "B"
	}
	tests := []struct {
		name, text string
		want       error
	}{
		{"later version", "cl2." + text[4:], ErrTokenVersion},
		{"other text", "hello world", ErrTokenMalformed},
		{"one character changed", text[:60] + flip + text[61:], ErrTokenMalformed},
		{"foreign character", text[:60] + "!" + text[61:], ErrTokenMalformed},
		{"something added", text + "AAAA", ErrTokenMalformed},
		{"one character added", text + "A", ErrTokenMalformed},
		{"huge", tokenPrefix + strings.Repeat("A", maxTokenText), ErrTokenMalformed},
	}
	for _, tt := range tests {
		_, err := ParseToken(tt.text)
		if !errors.Is(err, tt.want) || api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestNewTokenRefuses(t *testing.T) {
	good := newToken(t)
	tests := []struct {
		name    string
		cluster string
		anchors []string
		role    api.Role
	}{
		{"no anchor", good.Cluster, nil, api.RoleNode},
		{"no peer", good.Cluster, []string{"/ip4/192.0.2.7/tcp/1"}, api.RoleNode},
		{"not an address", good.Cluster, []string{"vps:4001"}, api.RoleNode},
		{"no cluster", "", good.Anchors, api.RoleNode},
		{"no such role", good.Cluster, good.Anchors, "king"},
	}
	for _, tt := range tests {
		if _, err := NewToken(tt.cluster, tt.anchors, tt.role); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	text := newToken(f).String()
	for _, seed := range []string{"", "cl1.", "cl2.AAAA", text, text[:len(text)/2], text + text, "cl1.AAAAAAAAAAAA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		tok, err := ParseToken(in)
		if err != nil {
			if api.KindOf(err) != api.KindInvalid {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		again, err := ParseToken(tok.String())
		if err != nil || !reflect.DeepEqual(again, tok) {
			t.Fatalf("%#v came back as %#v, %v", tok, again, err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	a, key := newAuthority(f), newKey(f)
	f.Add(issue(f, a, key, "", MaxTTL, api.RoleNode))
	f.Add(issue(f, a, key, "ada", MaxTTL, api.RoleViewer))
	f.Add(a.Certificate().Raw)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		m, err := Verify(der, a.Certificate(), now, VerifyOptions{})
		if err == nil && m.ID != nodeOf(key) {
			t.Fatalf("accepted a certificate that was never issued: %+v", m)
		}
	})
}
