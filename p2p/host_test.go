package p2p

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// Whoever starts a node where its port is taken learns that, and what to do.
func TestTakenPortIsSaid(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	key, id := newKey(t)
	a := newAuthority(t)
	adm := &admission{authority: a}
	adm.set(a.issue(api.Member{ID: id, Roles: []api.Role{api.RoleNode}, NotAfter: time.Now().Add(time.Hour)}))
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{
		Key: key, Admission: adm, Cluster: "test", Listen: []string{"/ip4/127.0.0.1/tcp/" + port}, NoLAN: true, NoPortMap: true,
	})
	problems := api.Problems(err)
	if len(problems) != 1 || problems[0].Kind != api.KindConflict || !strings.Contains(err.Error(), port) || !strings.Contains(problems[0].Hint, "--listen") {
		t.Errorf("got %v", err)
	}
}
