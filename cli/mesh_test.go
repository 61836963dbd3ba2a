package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/security/identity"
)

// anchor is a cluster of one: an authority and a fake node on a real mesh.
type anchor struct {
	authority *identity.Authority
	own       credentials
	token     identity.Token // of an operator
	address   string         // ends in /p2p/<peer-id>
	// issued is when the certificates that it gives out begin.
	issued time.Time
}

func newAnchor(t *testing.T) *anchor {
	t.Helper()
	now := time.Now()
	authority, err := identity.NewAuthority("home", now)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &anchor{authority: authority, issued: now}
	csr, err := identity.NewCSR(key, "vps")
	if err != nil {
		t.Fatal(err)
	}
	own, err := a.issue(csr, "", api.RoleNode, api.RoleAnchor)
	if err != nil {
		t.Fatal(err)
	}
	access := clusterAccess{Cluster: authority.ClusterID()}
	if access.CA, err = certificatePEM(authority.Certificate().Raw); err != nil {
		t.Fatal(err)
	}
	if access.Certificate, err = certificatePEM(own); err != nil {
		t.Fatal(err)
	}
	if access.Key, err = keyPEM(key); err != nil {
		t.Fatal(err)
	}
	if a.own, err = access.credentials(); err != nil {
		t.Fatal(err)
	}
	a.serve(t)
	if a.token, err = identity.NewToken(authority.ClusterID(), []string{a.address}, api.RoleOperator); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *anchor) issue(csr []byte, operator string, roles ...api.Role) ([]byte, error) {
	der, _, err := a.authority.Issue(csr, roles, operator, a.issued, identity.MaxTTL)
	return der, err
}

func (a *anchor) serve(t *testing.T) {
	t.Helper()
	mesh, err := p2p.New(p2p.Config{
		Key: a.own.key, Admission: guest{a.own}, Cluster: a.authority.ClusterID(),
		Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Public: p2p.PublicNo, NoLAN: true, NoPortMap: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, listen := range mesh.Host().Network().ListenAddresses() {
		if strings.Contains(listen.String(), "/tcp/") {
			a.address = listen.String() + "/p2p/" + string(mesh.ID())
		}
	}
	mesh.ServeEnrol(nil, func(_ context.Context, r p2p.EnrolRequest) (p2p.EnrolReply, error) {
		if !identity.SecretMatches(r.Secret, a.token.Hash()) {
			return p2p.EnrolReply{}, api.Errorf(api.KindDenied, "the token is not valid")
		}
		der, err := a.issue(r.CSR, r.Name, a.token.Role)
		return p2p.EnrolReply{Certificate: der, CA: a.authority.Certificate().Raw, ClusterName: "home"}, err
	})
	listener, err := mesh.Listen(api.ProtoAPI)
	if err != nil {
		t.Fatal(err)
	}
	node := newFake()
	node.renew = func(csr []byte) ([]byte, error) { return a.issue(csr, "alice", api.RoleOperator) }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- mesh.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	node.serve(t, listener)
}

// laptop is a home directory without a node.
func laptop(t *testing.T) (config string) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	t.Setenv(envSocket, "")
	t.Setenv(envContext, "")
	return filepath.Join(home, ".config", "cloudless", configFile)
}

func runAt(t *testing.T, now time.Time, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), args, strings.NewReader(""), &stdout, &stderr, at(now))
	return result{code, stdout.String(), stderr.String()}
}

func TestLogin(t *testing.T) {
	a, config := newAnchor(t), laptop(t)
	now := time.Now()

	got := runAt(t, now, "login", a.token.String(), "--name", "alice", "-o", "name")
	if got.code != 0 || got.stdout != "home\n" {
		t.Fatalf("login: %+v", got)
	}
	info, err := os.Stat(config)
	if err != nil || (runtime.GOOS != "windows" && info.Mode().Perm() != 0o600) {
		t.Errorf("the contexts: %v, %v", info.Mode(), err)
	}
	if got := runAt(t, now, "--context", "home", "node", "list", "-o", "name"); got.code != 0 || got.stdout != "pi\nvps\n" || got.stderr != "" {
		t.Errorf("node list of the context: %+v", got)
	}
	if got := runAt(t, now, "--peer", a.address, "node", "list", "-o", "name"); got.code != 0 || got.stdout != "pi\nvps\n" {
		t.Errorf("node list of the peer: %+v", got)
	}
	if got := runAt(t, now, "--context", "home", "--peer", "nonsense", "node", "list"); got.code != exitUsage || !strings.Contains(got.stderr, "--peer") {
		t.Errorf("a wrong peer: %+v", got)
	}
	if got := runAt(t, now, "context", "list", "--no-headers"); !strings.HasPrefix(got.stdout, "*  home  home  alice  for 2") {
		t.Errorf("context list: %+v", got)
	}
	if got := runAt(t, now.Add(30*time.Hour), "--context", "home", "node", "list"); got.code != exitDenied || !strings.Contains(got.stderr, "cloudless login") {
		t.Errorf("with an old certificate: %+v", got)
	}
	if err := os.Chmod(config, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := runAt(t, now, "context", "list"); runtime.GOOS != "windows" && got.code != exitDenied {
		t.Errorf("contexts that others can read: %+v", got)
	}
}

func TestSecondContext(t *testing.T) {
	a := newAnchor(t)
	laptop(t)
	now := time.Now()
	for _, name := range []string{"one", "two", "one"} {
		if got := runAt(t, now, "login", a.token.String(), "--context", name); got.code != 0 {
			t.Fatalf("login: %+v", got)
		}
	}
	if got := runAt(t, now, "context", "use", "two"); got.code != 0 {
		t.Fatalf("context use: %+v", got)
	}
	if got := runAt(t, now, "context", "list", "-o", "name"); got.stdout != "one\ntwo\n" {
		t.Errorf("context list: %+v", got)
	}
	all, err := loadContexts()
	if err != nil || all.Current != "two" || all.Contexts[0].Key == all.Contexts[1].Key {
		t.Errorf("the file: %+v, %v", all, err)
	}
}

func TestRenewal(t *testing.T) {
	a := newAnchor(t)
	laptop(t)
	now := time.Now()
	a.issued = now.Add(-13 * time.Hour)
	if got := runAt(t, now, "login", a.token.String(), "--name", "alice"); got.code != 0 {
		t.Fatalf("login: %+v", got)
	}
	a.issued = now
	if got := runAt(t, now, "--context", "home", "node", "list", "-o", "name"); got.code != 0 || got.stderr != "" {
		t.Fatalf("node list: %+v", got)
	}
	all, err := loadContexts()
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := all.Contexts[0].credentials()
	if err != nil || renewed.certificate.NotAfter.Before(now.Add(23*time.Hour)) {
		t.Errorf("the certificate ends %v, %v", renewed.certificate.NotAfter, err)
	}
}

func TestLoginRefused(t *testing.T) {
	a, config := newAnchor(t), laptop(t)
	wrong := a.token
	wrong.Secret[0] ^= 1
	if got := runAt(t, time.Now(), "login", wrong.String()); got.code != exitDenied || !strings.Contains(got.stderr, "not valid") {
		t.Errorf("a wrong secret: %+v", got)
	}
	if got := runAt(t, time.Now(), "login", testToken(t, api.RoleNode).String()); got.code != exitUsage || !strings.Contains(got.stderr, "node start --join") {
		t.Errorf("a node's token: %+v", got)
	}
	if got := runAt(t, time.Now(), "login", a.token.String(), "--name", "Not A Name"); got.code != exitUsage {
		t.Errorf("a wrong name: %+v", got)
	}
	if _, err := os.Stat(config); err == nil {
		t.Error("a context was made")
	}
}

func TestPeersAreLearned(t *testing.T) {
	nodes := sampleNodes()
	nodes[1].Inventory.Addresses = []string{"/ip4/192.0.2.1/tcp/4717"}
	access := clusterAccess{Peers: []string{"old"}}
	access.learnPeers(nodes[:1])
	if len(access.Peers) != 1 || access.Peers[0] != "old" {
		t.Errorf("an anchor was forgotten: %v", access.Peers)
	}
	access.learnPeers(nodes)
	if want := "/ip4/192.0.2.1/tcp/4717/p2p/12D3KooWVPSaaaaaaaaaa"; len(access.Peers) != 1 || access.Peers[0] != want {
		t.Errorf("got %v, want %s", access.Peers, want)
	}
	if access.Others != nil {
		t.Errorf("a node that is not well is among the others: %v", access.Others)
	}

	home := nodes[0]
	home.State, home.Inventory.Addresses = api.NodeReady, nil
	for i := range 10 {
		home.Inventory.Addresses = append(home.Inventory.Addresses, fmt.Sprintf("/ip4/192.168.1.%d/tcp/4717", i), fmt.Sprintf("/ip4/192.0.2.%d/tcp/4717/p2p/%s/p2p-circuit", i, nodes[1].ID))
	}
	for range 20 {
		nodes = append(nodes, home)
	}
	access.learnPeers(nodes)
	if len(access.Peers) != 1 || len(access.Others) != maxContextPeers*(maxPeerDirect+maxPeerRelayed) {
		t.Errorf("%d peers and %d others", len(access.Peers), len(access.Others))
	}
}

// TestOthersAnswerWithoutAnchors: the anchors of a context are away, another
// node is there; whoever uses the context learns of more.
func TestOthersAnswerWithoutAnchors(t *testing.T) {
	a := newAnchor(t)
	laptop(t)
	now := time.Now()
	if got := runAt(t, now, "login", a.token.String(), "--name", "alice"); got.code != 0 {
		t.Fatalf("login: %+v", got)
	}
	all, err := loadContexts()
	if err != nil {
		t.Fatal(err)
	}
	away, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all.Contexts[0].Peers = []string{"/ip4/127.0.0.1/tcp/1/p2p/" + string(identity.NodeID(away))}
	all.Contexts[0].Others = []string{a.address}
	if err := all.save(); err != nil {
		t.Fatal(err)
	}
	got := runAt(t, now, "--context", "home", "node", "list", "-o", "name")
	if got.code != 0 || got.stdout != "pi\nvps\n" || got.stderr != "" {
		t.Errorf("node list by another node: %+v", got)
	}
	if all, err = loadContexts(); err != nil || !all.Contexts[0].Learned.Equal(now) || all.Contexts[0].Others != nil {
		t.Errorf("nothing was learned: %+v, %v", all.Contexts[0], err)
	}
	all.Contexts[0].Others = []string{"damaged"}
	if err := all.save(); err != nil {
		t.Fatal(err)
	}
	if got := runAt(t, now, "--context", "home", "node", "list"); got.code != exitUnreachable || !strings.Contains(got.stderr, "cannot be reached") {
		t.Errorf("nobody is there: %+v", got)
	}
}

func TestDamagedContexts(t *testing.T) {
	config := laptop(t)
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{", "surprise: 1", "contexts: [{name: home, ca: x}]\ncurrent: home"} {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := runAt(t, noon, "--context", "home", "node", "list"); got.code != exitUsage || !strings.Contains(got.stderr, "damaged") {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
