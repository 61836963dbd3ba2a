package p2p

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
)

// Where members are is said by others: an anchor's answer to a joiner, and the
// view. What comes of it names nobody else, and is bounded.
func FuzzContacts(f *testing.F) {
	_, id := newKey(f)
	_, other := newKey(f)
	_, own := newKey(f)
	self, err := peer.Decode(string(own))
	if err != nil {
		f.Fatal(err)
	}
	list := func(contacts ...Contact) []byte {
		b, err := json.Marshal(contacts)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	many := Contact{ID: id}
	for range 2 * maxContactAddrs {
		many.Addresses = append(many.Addresses, "/ip4/192.0.2.1/tcp/4717")
	}
	f.Add(list(many, Contact{ID: "x"}, Contact{}))
	f.Add(list(Contact{ID: id, Relay: true, Addresses: []string{
		"/ip4/192.0.2.1/udp/4717/quic-v1/p2p/" + string(id), "/ip4/192.0.2.1/tcp/4717/p2p/" + string(other), "/p2p/" + string(id),
		"/ip4/192.0.2.1/tcp/4717/p2p/" + string(other) + "/p2p-circuit", "/dns/localhost/tcp/1", "", "/",
	}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var said []Contact
		if json.Unmarshal(data, &said) != nil {
			return
		}
		said = append(said, Contact{ID: own, Addresses: []string{"/ip4/192.0.2.1/tcp/1"}})
		for _, c := range said {
			k, ok := c.parse()
			if !ok {
				continue
			}
			if len(k.addrs) > maxContactAddrs {
				t.Errorf("%d addresses of one member", len(k.addrs))
			}
			for _, a := range k.addrs {
				if rest, last := multiaddr.SplitLast(a); len(rest) > 0 && last.Protocol().Code == multiaddr.P_P2P {
					t.Errorf("%s is taken for an address of %s", a, c.ID)
				}
				_, _ = udpAddr(a)
				_ = excluded(a, DefaultExclude())
				_ = classify(a)
			}
			if _, err := anchorsOf(c.Addresses); err != nil && api.KindOf(err) != api.KindInvalid {
				t.Errorf("kind of %v", err)
			}
		}
		known := newContacts(self, said)
		for _, p := range known.wanted() {
			if p == self || !slices.ContainsFunc(said, func(c Contact) bool { return string(c.ID) == p.String() }) {
				t.Errorf("%s is wanted, whom nobody has named", p)
			}
		}
		if fresh, left := known.replace(said); len(fresh)+len(left) > 0 {
			t.Errorf("the same list changes %v and %v", fresh, left)
		}
	})
}

// A relay says what this device looks like, a witness what it has seen.
func FuzzAnswers(f *testing.F) {
	f.Add(frame(appearance{Address: "192.0.2.1:4717", Also: 4718}))
	f.Add(frame(appearance{Address: "[::ffff:192.0.2.1%eth0]:1"}))
	f.Add(frame(appearance{}))
	f.Add(frame(sightingFrame{Reached}))
	f.Add([]byte{0, 0, 4, 1, '{'})
	f.Fuzz(func(t *testing.T, said []byte) {
		rw := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(said), io.Discard}
		if now, _, err := askWho(rw); err == nil && (!now.IsValid() || now.Addr().Is4In6()) {
			t.Errorf("this device looks like %v", now)
		}
		var answer sightingFrame
		_ = readFrame(bytes.NewReader(said), maxAskFrame, &answer)
	})
}
