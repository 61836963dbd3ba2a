package p2p

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	dto "github.com/prometheus/client_model/go"

	"github.com/cloudless-project/cloudless/api"
)

func knowing(contacts ...Contact) func(*Config) {
	return func(c *Config) { c.Contacts = contacts }
}

// again starts the mesh of a member that was stopped: the same key, other ports.
func (n *node) again(t testing.TB, a *authority, edit func(*Config)) *node {
	t.Helper()
	return a.start(t, func(c *Config) {
		c.Key, c.Admission = n.cfg.Key, n.adm
		if edit != nil {
			edit(c)
		}
	})
}

// holds reports whether a member has the newest record of another.
func (n *node) holds(o *node) bool {
	r, ok := n.records.get(o.host.ID())
	return ok && slices.ContainsFunc(o.Addrs(), func(text string) bool { return multiaddr.Contains(r.addrs, multiaddr.StringCast(text)) })
}

func reaches(t testing.TB, from, to *node) {
	t.Helper()
	c, err := from.Dial(testContext(t), to.ID(), protoEcho)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := echo(c, []byte("hello")); err != nil || string(back) != "hello" {
		t.Errorf("%q, %v", back, err)
	}
}

// TestMembersFindEachOtherByGossip: two members that no view tells of each
// other, and a third one that knows both and then goes away (CLD-REQ-003).
func TestMembersFindEachOtherByGossip(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := a.start(t, nil)
	n1, n2 := a.start(t, knowing(c.contact())), a.start(t, knowing(c.contact()))
	c.SetMembers([]Contact{n1.contact(), n2.contact()})
	serveEcho(t, n2, protoEcho)
	eventually(t, "the records have spread", func() bool { return n1.holds(n2) && n2.holds(n1) })
	c.stop()
	reaches(t, n1, n2)
}

// TestMovedMemberIsFound: a member comes back elsewhere; who knew its old
// address hears of the new one from a neighbour, and connects by itself.
func TestMovedMemberIsFound(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c, n1, n2 := a.start(t, nil), a.start(t, nil), a.start(t, nil)
	introduce(c, n1, n2)
	eventually(t, "everybody is connected", func() bool { return admittedBoth(n1, n2)() && admittedBoth(c, n2)() && n1.holds(n2) })
	old := n2.contact()
	n2.stop()
	moved := n2.again(t, a, knowing(c.contact()))
	serveEcho(t, moved, protoEcho)
	if slices.ContainsFunc(moved.Addrs(), func(s string) bool { return slices.Contains(old.Addresses, s) }) {
		t.Fatalf("it has not moved: %v", moved.Addrs())
	}
	eventually(t, "n1 has heard where n2 is", func() bool { return n1.holds(moved) })
	eventually(t, "n1 is connected to n2", admittedBoth(n1, moved))
	reaches(t, n1, moved)
}

// TestNeighboursPassOnWhatTheyHear: a member that moved published its record
// while nobody was connected to it; whoever meets it first tells the others.
func TestNeighboursPassOnWhatTheyHear(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c, n1, n2 := a.start(t, nil), a.start(t, nil), a.start(t, nil)
	introduce(c, n1, n2)
	eventually(t, "the records have spread", func() bool { return n1.holds(n2) && c.holds(n2) && admittedBoth(c, n1)() })
	n2.stop()
	n1.topics.pubsub.BlacklistPeer(n2.host.ID()) // what n2 publishes does not get there …
	n1.SetMembers([]Contact{c.contact()})        // … and nobody there looks for it
	moved := n2.again(t, a, nil)
	eventually(t, "it has signed where it is now", func() bool { return moved.holds(moved) })
	moved.SetMembers([]Contact{c.contact()})
	eventually(t, "n1 has heard of it", func() bool { return n1.holds(moved) })
}

// TestPeersAreAskedUntilTheyAnswer: a pull that fails is repeated soon, one
// that does not is repeated once; neither goes on for good.
func TestPeersAreAskedUntilTheyAnswer(t *testing.T) {
	now := time.Now()
	a := newAsking(now)
	if !a.due(now) {
		t.Error("a peer that came is not asked at once")
	}
	a.answered(io.ErrUnexpectedEOF, now)
	if a.due(now) || !a.due(now.Add(pullCheck)) {
		t.Error("a pull that failed is not repeated soon")
	}
	a.answered(nil, now)
	if a.due(now.Add(pullCheck)) || !a.due(now.Add(pullAgain)) {
		t.Error("a pull that went well is not repeated once")
	}
	a.answered(nil, now)
	if a.due(now.Add(time.Hour)) {
		t.Error("a peer that has answered twice is asked again")
	}
	deaf, tries := newAsking(now), 0
	for at := now; at.Before(now.Add(time.Hour)); at = at.Add(pullCheck) {
		if deaf.due(at) {
			deaf.answered(io.ErrUnexpectedEOF, at)
			tries++
		}
	}
	if tries != pullTries {
		t.Errorf("a peer that never answers is asked %d times", tries)
	}
}

// TestSilentConnectionsAreLeft: one end has another address; a connection is kept
// while the other end answers, and then is not waited for.
func TestSilentConnectionsAreLeft(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	introduce(n1, n2)
	eventually(t, "both are connected", admittedBoth(n1, n2))
	var old network.Conn
	eventually(t, "a connection that answers is kept", func() bool {
		if old = n1.best(n2.host.ID()); old == nil {
			return false
		}
		n1.leaveSilent([]network.Conn{old})
		return !old.IsClosed() // a busy machine may be silent for once
	})
	n2.host.SetStreamHandler(api.ProtoProbe, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
	n1.leaveSilent([]network.Conn{old})
	if !old.IsClosed() {
		t.Error("a connection that is silent was kept")
	}
	eventually(t, "they are connected again", admittedBoth(n1, n2))
}

// TestConnectionsFromALostAddressAreLeft: this device has lost the address that
// a connection comes from.
func TestConnectionsFromALostAddressAreLeft(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n1 := a.start(t, nil)
	lost := a.start(t, func(c *Config) { c.Listen = []string{"/ip4/127.0.0.5/tcp/0"} }) // not an address of any interface
	// n1 dials: who dials leaves by the address of its route, whatever it listens on.
	n1.SetMembers([]Contact{lost.contact()})
	eventually(t, "both are connected", admittedBoth(n1, lost))
	c := lost.best(n1.host.ID())
	lost.leaveSilent([]network.Conn{c})
	if !c.IsClosed() {
		t.Errorf("the connection from %s was kept", c.LocalMultiaddr())
	}
}

// TestRecordsOutliveARestart: a member that starts with nothing but what it
// kept finds the others.
func TestRecordsOutliveARestart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n1, n2 := a.start(t, nil), a.start(t, nil)
	introduce(n1, n2)
	serveEcho(t, n2, protoEcho)
	eventually(t, "n1 holds both records", func() bool { return n1.holds(n2) && n1.holds(n1) })
	own, _ := n1.records.get(n1.host.ID())
	n1.stop()
	kept, _ := n1.Records()

	n1 = n1.again(t, a, func(c *Config) { c.Records = append(kept, []byte("torn")) })
	reaches(t, n1, n2)
	eventually(t, "n1 has told its new address", func() bool { return n2.holds(n1) })
	if r, _ := n1.records.get(n1.host.ID()); r.seq <= own.seq {
		t.Errorf("the sequence went from %d to %d", own.seq, r.seq)
	}
}

// TestRecordsOfStrangersAreRefused: a signature proves who speaks, not that he
// is a member.
func TestRecordsOfStrangersAreRefused(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	n := a.start(t, nil)
	certified := func(by *authority, o owner, roles ...api.Role) []byte {
		return by.issue(api.Member{ID: api.NodeID(o.id.String()), Roles: roles, NotAfter: time.Now().Add(time.Hour)})
	}
	record := func(o owner, seq uint64, cert []byte) []byte {
		r, err := sealRecord(memberRecord{peer: o.id, seq: seq, cert: cert, addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/9")}}, o.key)
		if err != nil {
			t.Fatal(err)
		}
		return r.raw
	}
	count := func(result string) float64 {
		var m dto.Metric
		if err := n.metrics.records.WithLabelValues(viaGossip, result).Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetCounter().GetValue()
	}
	member, revoked, other, person := newOwner(t), newOwner(t), newOwner(t), newOwner(t)
	a.revoke(api.NodeID(revoked.id.String()))
	for _, tt := range []struct {
		what   string
		raw    []byte
		result string
	}{
		{"a member", record(member, 5, certified(a, member, api.RoleNode)), "accepted"},
		{"the same again", record(member, 5, certified(a, member, api.RoleNode)), "known"},
		{"an older one", record(member, 4, certified(a, member, api.RoleNode)), "known"},
		{"a newer one", record(member, 6, certified(a, member, api.RoleNode)), "accepted"},
		{"no certificate", record(other, 1, nil), "stranger"},
		{"another cluster's", record(other, 2, certified(foreign, other, api.RoleNode)), "stranger"},
		{"another member's certificate", record(other, 3, certified(a, member, api.RoleNode)), "stranger"},
		{"a revoked member", record(revoked, 1, certified(a, revoked, api.RoleNode)), "stranger"},
		{"a person", record(person, 1, certified(a, person, api.RoleOperator)), "stranger"},
		{"too long", make([]byte, maxRecord+1), "malformed"},
	} {
		before := count(tt.result)
		n.hear(tt.raw, viaGossip)
		if count(tt.result) != before+1 {
			t.Errorf("%s is not counted as %s", tt.what, tt.result)
		}
	}
	if r, ok := n.records.get(member.id); !ok || r.seq != 6 {
		t.Errorf("the member's record is %+v", r.memberRecord)
	}
	for _, o := range []owner{revoked, other, person} {
		if _, ok := n.records.get(o.id); ok || n.isMember(o.id) {
			t.Errorf("%s counts as a member", o.id)
		}
	}

	a.revoke(api.NodeID(member.id.String()))
	n.dropRecords()
	if _, ok := n.records.get(member.id); ok || n.contacts.knows(member.id) {
		t.Error("the record of a member that was removed is kept")
	}
}

// TestOwnSequenceGoesOn: a device that has lost its disk numbers its records
// higher than those that others still hold.
func TestOwnSequenceGoesOn(t *testing.T) {
	t.Parallel()
	n := newAuthority(t).start(t, nil)
	key, err := crypto.UnmarshalEd25519PrivateKey(n.cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	far := uint64(time.Now().Add(365 * 24 * time.Hour).UnixMilli())
	lost, err := sealRecord(memberRecord{peer: n.host.ID(), seq: far}, key)
	if err != nil {
		t.Fatal(err)
	}
	n.hear(lost.raw, viaPull)
	eventually(t, "a record that replaces it", func() bool {
		r, _ := n.records.get(n.host.ID())
		return r.seq > far && len(r.addrs) > 0
	})
}

// TestStrangersLearnNoAddresses: neither the records nor the search for
// members answers somebody without a certificate; people have no use for the
// records either.
func TestStrangersLearnNoAddresses(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	n := a.start(t, hasty)
	h := stranger(t)
	to := direct(t, n, transportTCP)
	if err := h.Connect(testContext(t), to); err != nil {
		t.Fatal(err)
	}
	protos := n.host.Mux().Protocols()
	for _, id := range []protocol.ID{api.ProtoRecords, "/cloudless/test/kad/1.0.0"} {
		if !slices.Contains(protos, id) {
			t.Errorf("%s is not served: %v", id, protos)
		}
		refusedStream(t, h, to.ID, id)
	}
	if slices.ContainsFunc(protos, func(id protocol.ID) bool { return strings.HasPrefix(string(id), "/ipfs/kad") }) {
		t.Errorf("the public network's protocol is served: %v", protos)
	}
	person := a.start(t, func(c *Config) { c.Client = true }, api.RoleOperator)
	person.SetMembers([]Contact{n.contact()})
	c, err := person.Dial(testContext(t), n.ID(), api.ProtoRecords)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(testTimeout))
		_, _ = c.Write([]byte{0})
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if api.KindOf(err) != api.KindDenied && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a person pulls records: %v", err)
	}
}

// TestSearchAmongTheMembers: when no record and no view says where a member
// is, one that is connected to it does.
func TestSearchAmongTheMembers(t *testing.T) {
	a := newAuthority(t)
	c, n2 := a.start(t, nil), a.start(t, nil)
	c.host.RemoveStreamHandler(api.ProtoRecords)
	n1 := a.start(t, nil)
	n1.topics.pubsub.BlacklistPeer(n2.host.ID()) // n1 hears no record of n2
	n2.topics.pubsub.BlacklistPeer(n1.host.ID())
	n2.SetMembers([]Contact{c.contact()})
	c.SetMembers([]Contact{n2.contact(), n1.contact()})
	n1.SetMembers([]Contact{c.contact(), {ID: n2.ID()}})
	serveEcho(t, n2, protoEcho)
	eventually(t, "c knows both", func() bool { return admittedBoth(c, n1)() && admittedBoth(c, n2)() })
	eventually(t, "n1 reaches n2", func() bool {
		conn, err := n1.Dial(testContext(t), n2.ID(), protoEcho)
		if err != nil {
			n1.finder.mu.Lock()
			clear(n1.finder.last) // the test does not wait for the next time
			n1.finder.mu.Unlock()
			return false
		}
		conn.Close()
		return true
	})
	if n1.contacts.addrs(n2.host.ID()) != nil {
		t.Error("an address was known: nothing is proved")
	}
}
