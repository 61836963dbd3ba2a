package p2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// dialable returns n's addresses with its PeerID.
func dialable(n *node) []string {
	var out []string
	for _, a := range n.Addrs() {
		out = append(out, a+"/p2p/"+string(n.ID()))
	}
	return out
}

func TestEnrol(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, public, api.RoleNode, api.RoleAnchor)
	key, id := newKey(t)
	want := EnrolReply{Certificate: []byte("cert"), CA: []byte("ca"), ClusterName: "home", Anchors: []Contact{{ID: anchor.ID()}}}
	anchor.ServeEnrol(nil, func(_ context.Context, r EnrolRequest) (EnrolReply, error) {
		if r.Peer != id || r.Address == "" || r.TokenID != "t1" || string(r.Secret) != "secret" || r.Name != "pi" {
			t.Errorf("request = %+v", r)
		}
		return want, nil
	})
	got, err := Enrol(testContext(t), EnrolConfig{Key: key, Anchors: dialable(anchor), Request: EnrolRequest{
		Cluster: "test", TokenID: "t1", Secret: []byte("secret"), CSR: []byte("csr"), Name: "pi",
	}})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("reply = %+v, %v", got, err)
	}
}

func TestEnrolErrors(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, public)
	key, _ := newKey(t)
	var refuse error
	anchor.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) { return EnrolReply{}, refuse })
	_, other := newKey(t)
	dead := closedPort(t)
	tests := []struct {
		name    string
		anchors []string
		refuse  error
		kind    api.Kind
		text    string
	}{
		{"refused", dialable(anchor), api.Errorf(api.KindDenied, "the token has expired"), api.KindDenied, "the token has expired"},
		{"internal detail is not told", dialable(anchor), errors.New("disk on fire"), api.KindUnavailable, "could not process"},
		{"dead address", []string{dead + "/p2p/" + string(other)}, nil, api.KindUnavailable, dead},
		{"another peer answers", []string{anchor.Addrs()[0] + "/p2p/" + string(other)}, nil, api.KindUnavailable, anchor.Addrs()[0]},
		{"no peer", []string{"/ip4/127.0.0.1/tcp/1"}, nil, api.KindInvalid, "/p2p/"},
		{"no anchor", nil, nil, api.KindInvalid, "no anchor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refuse = tt.refuse
			_, err := Enrol(testContext(t), EnrolConfig{Key: key, Anchors: tt.anchors})
			if api.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("err = %v (%s), want %s with %q", err, api.KindOf(err), tt.kind, tt.text)
			}
			if err != nil && strings.Contains(err.Error(), "fire") {
				t.Errorf("the joiner learns of %v", err)
			}
		})
	}
}

func TestEnrolTakesTheNextAnchor(t *testing.T) {
	a := newAuthority(t)
	busy, good := a.start(t, public), a.start(t, public)
	busy.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) {
		return EnrolReply{}, api.Errorf(api.KindUnavailable, "no leader")
	})
	good.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) { return EnrolReply{ClusterName: "home"}, nil })
	key, _ := newKey(t)
	reply, err := Enrol(testContext(t), EnrolConfig{Key: key, Anchors: append(dialable(busy), dialable(good)...)})
	if err != nil || reply.ClusterName != "home" {
		t.Errorf("reply = %+v, %v", reply, err)
	}
}

func TestEnrolIsLimitedPerPeer(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, public)
	var asked atomic.Int64
	anchor.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) {
		asked.Add(1)
		return EnrolReply{}, api.Errorf(api.KindDenied, "wrong secret")
	})
	key, _ := newKey(t)
	// Several at once: a busy machine may take longer for one than the limit asks for.
	eventually(t, "the limit holds", func() bool {
		var limited atomic.Bool
		each(make([]struct{}, 2*enrolPeer.burst), 2*enrolPeer.burst, func(struct{}) {
			if _, err := Enrol(testContext(t), EnrolConfig{Key: key, Anchors: dialable(anchor)}); api.KindOf(err) == api.KindExhausted {
				limited.Store(true)
			}
		})
		return limited.Load()
	})
	if n := asked.Load(); n < int64(enrolPeer.burst) {
		t.Errorf("only %d attempts were let through", n)
	}
}

func TestEnrolmentOutlivesTheDeadlineOfHello(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	anchor := a.start(t, func(c *Config) { public(c); c.AdmitWithin = 100 * time.Millisecond })
	anchor.ServeEnrol(nil, func(ctx context.Context, _ EnrolRequest) (EnrolReply, error) {
		select {
		case <-time.After(10 * 100 * time.Millisecond):
			return EnrolReply{ClusterName: "slow"}, nil
		case <-ctx.Done():
			return EnrolReply{}, ctx.Err()
		}
	})
	key, _ := newKey(t)
	reply, err := Enrol(testContext(t), EnrolConfig{Key: key, Anchors: dialable(anchor)})
	if err != nil || reply.ClusterName != "slow" {
		t.Errorf("reply = %+v, %v", reply, err)
	}
}

func TestClient(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, public, api.RoleNode, api.RoleAnchor)
	serveEcho(t, anchor, protoEcho, api.RoleOperator)
	contact, err := ParseContact(dialable(anchor)[0])
	if err != nil {
		t.Fatal(err)
	}
	cli := a.start(t, func(c *Config) { c.Client = true; c.Contacts = []Contact{contact} }, api.RoleOperator)
	if len(cli.Addrs()) != 0 {
		t.Errorf("a client listens on %v", cli.Addrs())
	}
	c, err := cli.Dial(testContext(t), contact.ID, protoEcho)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := echo(c, []byte("ps")); err != nil || string(back) != "ps" {
		t.Errorf("%q, %v", back, err)
	}
	if err := cli.Publish(testContext(t), api.TopicMembership, nil); api.KindOf(err) != api.KindUnsupported {
		t.Errorf("publish by a client: %v", err)
	}
}

func TestClientReachesANodeBehindARelay(t *testing.T) {
	a := newAuthority(t)
	anchor, n1, _ := homes(t, a)
	serveEcho(t, n1, protoEcho)
	contact, err := ParseContact(dialable(anchor)[0] + "/p2p-circuit/p2p/" + string(n1.ID()))
	if err != nil {
		t.Fatal(err)
	}
	cli := a.start(t, func(c *Config) { c.Client = true; c.Contacts = []Contact{contact} }, api.RoleOperator)
	var c Conn
	eventually(t, "n1 has its reservation", func() bool {
		c, err = cli.Dial(testContext(t), n1.ID(), protoEcho)
		return err == nil
	})
	if back, err := echo(c, []byte("ps")); err != nil || string(back) != "ps" || c.Path() != api.PathRelayed {
		t.Errorf("%q, %v, %s", back, err, c.Path())
	}
}

func TestParseContact(t *testing.T) {
	_, id := newKey(t)
	for _, bad := range []string{"", "vps:4717", "/ip4/192.0.2.1/tcp/4717", "/ip4/192.0.2.1/tcp/4717/p2p/x"} {
		if _, err := ParseContact(bad); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	c, err := ParseContact("/ip4/192.0.2.1/tcp/4717/p2p/" + string(id))
	if err != nil || c.ID != id || !reflect.DeepEqual(c.Addresses, []string{"/ip4/192.0.2.1/tcp/4717"}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func frame(v any) []byte {
	body, _ := json.Marshal(v)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func FuzzHelloFrame(f *testing.F) {
	f.Add(frame(helloMessage{Version: 1, Certificate: []byte("cert")}))
	f.Add(frame(helloMessage{Refused: "no"}))
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var m helloMessage
		if err := readFrame(bytes.NewReader(data), maxHelloFrame, &m); err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeFrame(&out, 2*maxHelloFrame, m); err != nil {
			t.Fatal(err)
		}
		var again helloMessage
		if err := readFrame(&out, 2*maxHelloFrame, &again); err != nil {
			t.Fatalf("%+v cannot be read again: %v", m, err)
		}
	})
}

func FuzzEnrolFrame(f *testing.F) {
	f.Add(frame(EnrolRequest{Cluster: "c", TokenID: "t", Secret: make([]byte, 32), CSR: []byte("csr"), Name: "pi"}))
	f.Add(frame(enrolAnswer{Reply: &EnrolReply{Anchors: []Contact{{ID: "x", Addresses: []string{"/ip4/1.2.3.4/tcp/1"}}}}}))
	f.Add(frame(enrolAnswer{Kind: api.KindDenied, Message: "no"}))
	f.Add([]byte{0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var r EnrolRequest
		if readFrame(bytes.NewReader(data), maxEnrolRequest, &r) == nil && r.Peer != "" {
			t.Fatal("the sender has set who it is")
		}
		var a enrolAnswer
		if readFrame(bytes.NewReader(data), maxEnrolFrame, &a) == nil && a.Reply != nil {
			for _, c := range a.Reply.Anchors {
				c.parse()
			}
		}
	})
}
