package p2p

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Whose certificate has ended is let in to renew it, and for nothing else.
func TestLapsedMemberReachesTheAPIAlone(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, public, api.RoleNode, api.RoleAnchor)
	for _, proto := range []string{api.ProtoAPI, api.ProtoFlow, api.ProtoBlock} {
		serveEcho(t, anchor, proto)
	}
	key, id := newKey(t)
	member := api.Member{ID: id, Roles: []api.Role{api.RoleNode}, NotAfter: time.Now().Add(time.Hour), Lapsed: true}
	node := a.start(t, func(c *Config) {
		c.Key, c.Contacts = key, []Contact{anchor.contact()}
		c.Admission.(*admission).set(a.issue(member))
	})
	reach := func(proto string) error {
		c, err := node.Dial(testContext(t), anchor.ID(), proto)
		if err != nil {
			return err
		}
		_, err = echo(c, []byte("it is me"))
		return err
	}
	if err := reach(api.ProtoAPI); err != nil {
		t.Errorf("a member whose certificate has ended cannot renew it: %v", err)
	}
	for _, proto := range []string{api.ProtoFlow, api.ProtoBlock} {
		if err := reach(proto); api.KindOf(err) != api.KindDenied {
			t.Errorf("a member whose certificate has ended reaches %s: %v", proto, err)
		}
	}
	member.Lapsed = false
	node.adm.set(a.issue(member))
	eventually(t, "it to be a member like others again", func() bool {
		m, ok := anchor.Admitted(id)
		return ok && !m.Lapsed
	})
	if err := reach(api.ProtoFlow); err != nil {
		t.Errorf("it renewed its certificate, and is refused: %v", err)
	}
}

// picky accepts certificates of an authority that counts.
type picky struct {
	*admission
	oldest atomic.Int64
}

func (p *picky) Verify(id api.NodeID, cert []byte) (api.Member, error) {
	m, err := p.admission.Verify(id, cert)
	if err == nil && m.Authority < int(p.oldest.Load()) {
		return api.Member{}, api.Errorf(api.KindDenied, "retired")
	}
	return m, err
}

// When a certificate stops to count, its holder may have another one by now.
func TestPeerIsAskedBeforeItIsEvicted(t *testing.T) {
	a := newAuthority(t)
	judge := &picky{}
	anchor := a.start(t, func(c *Config) {
		judge.admission = c.Admission.(*admission)
		c.Public, c.Admission = PublicYes, judge
	})
	if _, err := anchor.Listen(api.ProtoAPI); err != nil {
		t.Fatal(err)
	}
	var nodes []*node
	for range 2 {
		key, id := newKey(t)
		n := a.start(t, func(c *Config) {
			c.Key, c.Contacts, c.RefreshEvery = key, []Contact{anchor.contact()}, time.Hour // it shows nothing by itself
			c.Admission.(*admission).set(a.issue(api.Member{ID: id, Roles: []api.Role{api.RoleNode}, NotAfter: time.Now().Add(time.Hour), Authority: 1}))
		})
		if _, err := n.Dial(testContext(t), anchor.ID(), api.ProtoAPI); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	renewed, late := nodes[0], nodes[1]
	for _, n := range nodes { // whoever dialled is ready first
		eventually(t, "both to be admitted", admittedBoth(anchor, n))
	}
	renewed.adm.set(a.issue(api.Member{ID: renewed.ID(), Roles: []api.Role{api.RoleNode}, NotAfter: time.Now().Add(time.Hour), Authority: 2}))
	judge.oldest.Store(2)
	for _, s := range anchor.members(nil) {
		anchor.recheck(s)
	}
	eventually(t, "the one with an old certificate to be evicted", func() bool { _, ok := anchor.Admitted(late.ID()); return !ok })
	eventually(t, "the new certificate of the other one to be known", func() bool {
		m, ok := anchor.Admitted(renewed.ID())
		return ok && m.Authority == 2
	})
}
