package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/security/identity"
)

// enrolAs asks to enrol with a token and a new key, as `node start --join` does.
func enrolAs(ctx context.Context, key ed25519.PrivateKey, token identity.Token, name string) error {
	csr, err := identity.NewCSR(key, name)
	if err != nil {
		return err
	}
	_, err = p2p.Enrol(ctx, p2p.EnrolConfig{Key: key, Anchors: token.Anchors, Request: p2p.EnrolRequest{
		Cluster: token.Cluster, TokenID: token.ID, Secret: token.Secret[:], CSR: csr, Name: name,
	}})
	return err
}

func newDeviceKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parsed(t *testing.T, text string) identity.Token {
	t.Helper()
	token, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Of fifty devices with the same token, all at once, one becomes a member.
func TestTokenIsRacedByFifty(t *testing.T) {
	t.Parallel()
	const joiners = 50
	first := newDevice(t, "first")
	first.start(func(c *Config) { c.Init = true })
	token := parsed(t, first.token(api.RoleNode))
	var group sync.WaitGroup
	errs := make([]error, joiners)
	for i := range joiners {
		key := newDeviceKey(t)
		group.Go(func() { errs[i] = enrolAs(t.Context(), key, token, fmt.Sprintf("racer-%d", i)) })
	}
	group.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case api.KindOf(err) != api.KindDenied:
			t.Errorf("a loser is told: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d joined with a token for one", won, joiners)
	}
	c := first.client()
	defer c.Close()
	if nodes, err := c.Nodes(t.Context()); err != nil || len(nodes) != 2 {
		t.Errorf("the cluster has %d nodes, %v", len(nodes), err)
	}
}

func TestStaleTokensAreRefused(t *testing.T) {
	t.Parallel()
	first := newDevice(t, "first")
	first.start(func(c *Config) { c.Init = true })
	used := parsed(t, first.token(api.RoleNode))
	key := newDeviceKey(t)
	if err := enrolAs(t.Context(), key, used, "honest"); err != nil {
		t.Fatal(err)
	}
	if err := enrolAs(t.Context(), key, used, "honest"); err != nil {
		t.Errorf("who missed the answer asks again: %v", err)
	}
	c := first.client()
	defer c.Close()
	text, record, err := c.CreateToken(t.Context(), api.TokenRequest{Role: api.RoleNode, TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	short := parsed(t, text)
	first.eventually("the token is past its time", func(context.Context) error {
		if time.Now().Before(record.ExpiresAt) {
			return errors.New("it is not")
		}
		return nil
	})
	guessed := parsed(t, first.token(api.RoleNode))
	guessed.Secret[31] ^= 1
	foreign := parsed(t, first.token(api.RoleNode))
	foreign.Cluster = parsed(t, foreignToken(t)).Cluster
	for name, token := range map[string]identity.Token{"replayed": used, "expired": short, "guessed": guessed, "of another cluster": foreign} {
		if err := enrolAs(t.Context(), newDeviceKey(t), token, "thief"); api.KindOf(err) != api.KindDenied {
			t.Errorf("a token that is %s: %v", name, err)
		}
	}
	if nodes, err := c.Nodes(t.Context()); err != nil || len(nodes) != 2 {
		t.Errorf("the cluster has %d nodes, %v", len(nodes), err)
	}
}

// Who has a token is known by its secret, and not by the token's name, and only
// for as long as the token holds.
func TestWhoIsInvited(t *testing.T) {
	now := time.Now()
	token := parsed(t, foreignToken(t))
	store := state.New()
	put := state.PutToken{Now: now, Token: api.Token{
		ID: token.ID, Role: api.RoleNode, SecretHash: token.Hash(), ExpiresAt: now.Add(time.Minute), Uses: 1,
	}}
	redeem := state.RedeemToken{ID: token.ID, SecretHash: token.Hash(), Peer: "pi", Now: now}
	if res := store.Apply(1, []state.Command{put}); res.Err != nil {
		t.Fatal(res.Err)
	}
	before := store.View()
	if res := store.Apply(2, []state.Command{redeem}); res.Err != nil {
		t.Fatal(res.Err)
	}
	guess := token.Secret
	guess[0] ^= 1
	for _, tt := range []struct {
		what string
		view state.View
		req  p2p.EnrolRequest
		at   time.Time
		want bool
	}{
		{"who has the token", before, p2p.EnrolRequest{TokenID: token.ID, Secret: token.Secret[:]}, now, true},
		{"who has used it and asks again", store.View(), p2p.EnrolRequest{TokenID: token.ID, Secret: token.Secret[:]}, now, true},
		{"who knows its name", before, p2p.EnrolRequest{TokenID: token.ID}, now, false},
		{"who guesses", before, p2p.EnrolRequest{TokenID: token.ID, Secret: guess[:]}, now, false},
		{"who has another one", before, p2p.EnrolRequest{TokenID: "another", Secret: token.Secret[:]}, now, false},
		{"who comes too late", before, p2p.EnrolRequest{TokenID: token.ID, Secret: token.Secret[:]}, now.Add(time.Minute), false},
	} {
		if got := invited(tt.view, tt.req, tt.at); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
}

// takenOver is a member's identity in the hands of somebody with another
// program: it has the key and the certificate of a plain node.
func takenOver(t *testing.T, h *device) *p2p.Mesh {
	t.Helper()
	dir, err := openDataDir(h.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	key, err := identity.LoadOrCreateKey(dir.Root, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	m, err := dir.loadMembership()
	if err != nil {
		t.Fatal(err)
	}
	return runMesh(t, key, guest{m.Certificate}, m.Contacts)
}

func runMesh(t *testing.T, key ed25519.PrivateKey, adm p2p.Admission, anchors []contactFile) *p2p.Mesh {
	t.Helper()
	var contacts []p2p.Contact
	for _, c := range anchors {
		contacts = append(contacts, p2p.Contact{ID: c.ID, Addresses: c.Addresses, Anchor: true, Relay: true})
	}
	mesh, err := p2p.New(p2p.Config{
		Key: key, Admission: adm, Contacts: contacts, NoLAN: true, NoPortMap: true, Public: p2p.PublicNo,
		Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = mesh.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return mesh
}

// A member that was taken over has the rights of a node, and no more: it does
// not speak Raft, issues nothing, removes nobody and speaks for no other node.
func TestMemberPosesAsAnchor(t *testing.T) {
	t.Parallel()
	first, second := newDevice(t, "first"), newDevice(t, "second")
	first.start(func(c *Config) { c.Init = true })
	join := first.token(api.RoleNode)
	second.start(func(c *Config) { c.Join = join })
	status, err := first.client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second.shutdown()
	mesh := takenOver(t, second)

	t.Run("raft", func(t *testing.T) {
		conn, err := mesh.Dial(t.Context(), status.Node, api.ProtoRaft)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write(append(binary.BigEndian.AppendUint64(nil, 0), "\x00{}"...))
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("the anchor answers: %d bytes", n)
		} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			t.Error("the anchor keeps the stream open")
		}
	})
	conn, err := grpc.NewClient("passthrough:///first", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return mesh.Dial(ctx, status.Node, api.ProtoAPI)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	csr, err := identity.NewCSR(newDeviceKey(t), "friend")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(context.Context) error{
		"fetch the authority": func(ctx context.Context) error {
			_, err := pb.NewAnchorServiceClient(conn).FetchAuthority(ctx, &pb.FetchAuthorityRequest{Key: make([]byte, 32)})
			return err
		},
		"enrol a friend": func(ctx context.Context) error {
			_, err := pb.NewAnchorServiceClient(conn).EnrolFor(ctx, &pb.EnrolForRequest{TokenId: "x", Secret: make([]byte, 32), Csr: csr, Name: "friend"})
			return err
		},
		"certify a friend": func(ctx context.Context) error {
			_, err := pb.NewSyncServiceClient(conn).RenewCertificate(ctx, &pb.RenewCertificateRequest{Csr: csr})
			return err
		},
		"make a token": func(ctx context.Context) error {
			_, err := pb.NewTokenServiceClient(conn).CreateToken(ctx, &pb.CreateTokenRequest{})
			return err
		},
		"remove a node": func(ctx context.Context) error {
			_, err := pb.NewNodeServiceClient(conn).RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "first"})
			return err
		},
		"report for another": func(ctx context.Context) error {
			stream, err := pb.NewSyncServiceClient(conn).Sync(ctx)
			if err != nil {
				return err
			}
			report := wire.NodeReportToPB(api.NodeReport{Node: status.Node, Complete: true})
			if err := stream.Send(&pb.SyncRequest{Report: report}); err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
	}
	for what, call := range calls {
		t.Run(what, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := wire.ErrorFromStatus(call(ctx)); api.KindOf(err) != api.KindDenied {
				t.Errorf("a plain member may %s: %v", what, err)
			}
		})
	}
}

// Nonsense on any protocol of a daemon, too much of it, or none at all, harms
// nobody: the daemon goes on, and so do the calls of others. Every protocol that
// is spoken is one that the security guide lists.
func TestNonsenseOnEveryProtocolOfADaemon(t *testing.T) {
	t.Parallel()
	first, second := newDevice(t, "first"), newDevice(t, "second")
	first.start(func(c *Config) { c.Init = true })
	join := first.token(api.RoleNode)
	second.start(func(c *Config) { c.Join = join })
	status, err := first.client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second.shutdown()
	mesh := takenOver(t, second)
	protos := protocolsOf(t, first, mesh, status.Node)
	guide, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, proto := range protos {
		name := strings.Replace(proto, status.Cluster, "CLUSTER", 1)
		if strings.HasPrefix(proto, "/cloudless/") && !bytes.Contains(guide, []byte("`"+name+"`")) {
			t.Errorf("docs/security.md does not list %s", name)
		}
	}

	nonsense := map[string][]byte{
		"a huge length":       bytes.Repeat([]byte{0xff}, 64),
		"a huge frame":        append(binary.BigEndian.AppendUint32(nil, 64<<20), bytes.Repeat([]byte("["), 4<<20)...),
		"a frame of zeros":    make([]byte, 4<<20),
		"deep JSON":           append(binary.BigEndian.AppendUint32(nil, 8000), bytes.Repeat([]byte(`{"a":`), 1600)...),
		"HTTP/2 without end":  append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), bytes.Repeat([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}, 10_000)...),
		"a varint of old":     bytes.Repeat([]byte{0x80}, 1000),
		"silence":             nil,
		"one byte, then none": {0},
	}
	c := first.client()
	defer c.Close()
	for what, data := range nonsense {
		var group sync.WaitGroup
		for _, proto := range protos {
			group.Go(func() {
				conn, err := mesh.Dial(t.Context(), status.Node, proto)
				if err != nil {
					return
				}
				_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
				_, _ = conn.Write(data)
				_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
				_ = conn.Reset()
			})
		}
		group.Wait()
		first.eventually("the daemon is well after "+what, func(ctx context.Context) error {
			st, err := c.Status(ctx)
			if err == nil && !st.Ready {
				err = errors.New(st.Reason)
			}
			return err
		})
	}
	if _, err := c.Nodes(t.Context()); err != nil {
		t.Errorf("a call afterwards: %v", err)
	}
	first.eventually("the member is answered again", func(ctx context.Context) error {
		_, err := mesh.Probe(ctx, status.Node)
		return err
	})
}

// protocolsOf is what a daemon says that it speaks.
func protocolsOf(t *testing.T, d *device, mesh *p2p.Mesh, id api.NodeID) (protos []string) {
	t.Helper()
	p, err := peer.Decode(string(id))
	if err != nil {
		t.Fatal(err)
	}
	expected := []string{
		api.ProtoAPI, api.ProtoEnrol, api.ProtoGauge, api.ProtoHello, api.ProtoProbe, api.ProtoRaft, api.ProtoRecords, api.ProtoRevocations,
	}
	d.eventually("the daemon has said what it speaks", func(ctx context.Context) error {
		if _, err := mesh.Probe(ctx, id); err != nil {
			return err
		}
		known, err := mesh.Host().Peerstore().GetProtocols(p)
		if err != nil {
			return err
		}
		protos = protos[:0]
		for _, proto := range known {
			protos = append(protos, string(proto))
		}
		for _, proto := range expected {
			if !slices.Contains(protos, proto) {
				return fmt.Errorf("%s is not among %v", proto, protos)
			}
		}
		return nil
	})
	return protos
}

// A member's announcements and views are not those of an anchor, whatever they
// say of themselves.
func TestMemberDoesNotLead(t *testing.T) {
	b := newBureau(t)
	d, _ := listener(t, b)
	d.member = &membership{Cluster: b.authority.ClusterID()}
	d.herald = newHerald()
	d.views.amend(func(v api.ClusterView) api.ClusterView {
		v.Nodes = append(v.Nodes, api.Node{ID: "member"}, api.Node{ID: "anchor", Anchor: true})
		return v
	})
	announce := func(from api.NodeID) { d.heardAnnouncement(from, mustJSON(t, announcement{Epoch: 1 << 60})) }
	announce("member")
	announce("stranger")
	if leader, _ := d.herald.watch(); leader != "" {
		t.Errorf("%s leads by its own word", leader)
	}
	view := api.ClusterView{Cluster: api.Cluster{ID: d.member.Cluster, Epoch: 1 << 60}, Revocations: []api.Revocation{{ID: string(d.self)}}}
	for _, from := range []api.NodeID{"member", "stranger"} {
		if err := d.receive(from, view); api.KindOf(err) != api.KindDenied {
			t.Errorf("a view of %s: %v", from, err)
		}
	}
	if d.admission.removed() != nil || len(d.views.current().Replicas) != 2 {
		t.Error("a member's view was acted on")
	}
	announce("anchor")
	if leader, _ := d.herald.watch(); leader != "anchor" {
		t.Errorf("%q leads, want the anchor", leader)
	}
}

// Nonsense on a topic is dropped without a word.
func FuzzAnnouncement(f *testing.F) {
	f.Add([]byte(`{"e":1,"r":[{"id":"x","signature":"AA=="}]}`))
	f.Add([]byte(`{"e":-1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var a announcement
		if json.Unmarshal(raw, &a) == nil {
			_ = mustJSON(t, a)
		}
		decodeHeartbeat(raw)
	})
}
