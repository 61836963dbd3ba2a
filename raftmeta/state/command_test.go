package state

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// onDisk are names of commands that are in the logs of clusters. More may be
// added here; none may be changed or taken away.
const onDisk = `cluster.create event.record token.put token.revoke token.redeem node.enrol node.report node.state
node.update node.remove node.voter workload.put workload.scale workload.delete plan.commit image.put image.remove
authority.add authority.advance node.problem`

func TestNamesOfCommandsStay(t *testing.T) {
	for _, name := range strings.Fields(onDisk) {
		if _, ok := kindByName[name]; !ok {
			t.Errorf("%s cannot be read any more", name)
		}
	}
	if len(kindByName) != len(kinds) || len(kindByType) != len(kinds) {
		t.Error("a command is there twice")
	}
}

// Every field of every command has a JSON name of its own choosing, since it is
// on disk.
func TestFieldsOfCommandsAreTagged(t *testing.T) {
	for _, k := range kinds {
		for f := range k.goType.Fields() {
			tag := f.Tag.Get("json")
			if tag == "" || strings.HasPrefix(tag, ",") || tag != strings.ToLower(tag) {
				t.Errorf("%s.%s has the tag %q", k.goType.Name(), f.Name, tag)
			}
		}
	}
}

func TestEveryCommandSurvivesEncoding(t *testing.T) {
	var cmds []Command
	for _, k := range kinds {
		cmds = append(cmds, reflect.Zero(k.goType).Interface().(Command))
	}
	cmds = append(cmds, PutWorkload{Name: "web", Labels: map[string]string{"a": "b"}, Spec: webSpec(3), ExpectVersion: 7, Now: epoch})
	data, err := Encode(cmds)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, cmds) {
		t.Errorf("got %+v", back)
	}
}

func TestEncodeIsBounded(t *testing.T) {
	if _, err := Encode(make([]Command, MaxCommands+1)); api.KindOf(err) != api.KindExhausted {
		t.Errorf("too many: %v", err)
	}
	big := RevokeToken{ID: strings.Repeat("x", MaxEncoded)}
	if _, err := Encode([]Command{big}); api.KindOf(err) != api.KindExhausted {
		t.Errorf("too large: %v", err)
	}
	if _, err := Encode([]Command{stranger{}}); err == nil {
		t.Error("a command that is not in the table is encoded")
	}
}

type stranger struct{}

func (stranger) apply(*tx) (any, error) { return nil, nil }

func TestDecodeIsStrict(t *testing.T) {
	for _, data := range []string{
		``, `{}`, `[`, `[{}]`, `[1]`, `[] []`, `[]x`,
		`[{"type":"from.the.future","body":{}}]`,
		`[{"type":"token.revoke","body":{"id":"x","force":true}}]`,
		`[{"type":"token.revoke","body":{"id":1}}]`,
		`[{"type":"token.revoke","extra":1,"body":{}}]`,
		`[{"type":"token.revoke","body":{} {}}]`,
		`[{"type":"token.revoke"}]`,
		`[` + strings.Repeat(`{"type":"token.revoke","body":{}},`, MaxCommands) + `{"type":"token.revoke","body":{}}]`,
		strings.Repeat("[", 20000),
		strings.Repeat(" ", MaxEncoded+1),
	} {
		if cmds, err := Decode([]byte(data)); err == nil {
			t.Errorf("%.60q decodes to %+v", data, cmds)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, k := range kinds {
		body, err := json.Marshal(reflect.Zero(k.goType).Interface())
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(`[{"type":"` + k.name + `","body":` + string(body) + `}]`))
	}
	f.Add([]byte(`[{"type":"node.report","body":{"report":{"node":"a","incarnation":1,"complete":true}}},{"type":"plan.commit","body":{"unplaced":{"web":"x"}}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cmds, err := Decode(data)
		if err != nil {
			return
		}
		s := New()
		if res := s.Apply(1, cmds); api.KindOf(res.Err) == api.KindInternal {
			t.Errorf("apply: %v", res.Err)
		}
		again, err := Encode(cmds)
		if err != nil {
			return // larger than it was, since JSON can be denser than Go writes it
		}
		if back, err := Decode(again); err != nil || len(back) != len(cmds) {
			t.Errorf("decode what was encoded: %v", err)
		}
	})
}
