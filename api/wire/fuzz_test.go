package wire

import (
	"reflect"
	"testing"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cloudless-project/cloudless/api"
)

// A message may say anything that Protocol Buffers can: every noun is made of it,
// the noun travels on as it was understood, and what its receiver does with it
// first ends well.
func FuzzMessages(f *testing.F) {
	for i, p := range pairs {
		message := p.toPB(reflect.New(p.noun).Elem().Interface())
		n := 0
		fillMessage(message.ProtoReflect(), func() int { n++; return n })
		data, err := proto.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), data)
		f.Add(uint8(i), data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		p := pairs[int(which)%len(pairs)]
		message := p.toPB(reflect.New(p.noun).Elem().Interface()).ProtoReflect().New().Interface()
		if proto.Unmarshal(data, message) != nil {
			return
		}
		noun := p.toAPI(message)
		sent := p.toPB(noun)
		if again := p.toPB(p.toAPI(sent)); !proto.Equal(sent, again) {
			t.Errorf("%s changes on its way:\n was %v\n is  %v", p.noun.Name(), sent, again)
		}
		receive(t, noun)
	})
}

// receive does what the receiver of a noun does with it before anything else.
func receive(t *testing.T, noun any) {
	switch n := noun.(type) {
	case api.WorkloadSpec:
		_ = n.Validate("spec")
	case api.ApplyRequest:
		_ = n.Spec.Validate("spec")
	case api.ViewDelta:
		view := api.ClusterView{Index: n.Base, Nodes: []api.Node{{ID: "n1"}}, Replicas: []api.Replica{{ID: "web.0.1"}}}
		v, err := view.Apply(n)
		if err != nil || len(v.Nodes) > len(n.Changed.Nodes)+1 || len(v.Replicas) > len(n.Changed.Replicas)+1 {
			t.Errorf("a delta makes %d nodes and %d replicas, %v", len(v.Nodes), len(v.Replicas), err)
		}
	case api.NodeReport:
		if n.Inventory != nil {
			_ = api.ValidateLabels("labels", n.Inventory.Labels)
		}
	}
}

// What another node calls an error is one here, of a kind that exists.
func FuzzErrorFromStatus(f *testing.F) {
	for kind := range kindCodes {
		err := ErrorToStatus(&api.Error{Kind: kind, Field: "spec.ports", Message: "is wrong", Hint: "make it right"})
		data, merr := proto.Marshal(status.Convert(err).Proto())
		if merr != nil {
			f.Fatal(merr)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var said spb.Status
		if proto.Unmarshal(data, &said) != nil || said.GetCode() == 0 {
			return
		}
		err := ErrorFromStatus(status.FromProto(&said).Err())
		if _, known := kindCodes[api.KindOf(err)]; err == nil || !known {
			t.Errorf("%v is of kind %q", err, api.KindOf(err))
		}
		if ErrorToStatus(err) == nil {
			t.Errorf("%v is none when it is passed on", err)
		}
	})
}
