package state

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// lived returns a cluster in which something of everything has happened.
func lived(t testing.TB) *cluster {
	c := webOn(t, "pi", "nas")
	c.must(
		CreateCluster{Cluster: api.Cluster{ID: "cid", Name: "home", CA: []byte{1, 2}, CreatedAt: epoch}},
		PutToken{Token: token("t", 2), Now: epoch},
		redeem(token("t", 2), "a", epoch),
		PutImage{Image: api.Image{Ref: "web", Digest: "sha256:1", Holders: []api.NodeID{nodeID("pi")}}, Now: epoch},
		EnrolNode{ID: "b", Name: "b", Now: epoch},
		RemoveNode{ID: "b", Reason: "old", Now: epoch},
		PutWorkload{Name: "gone", Spec: webSpec(1), Now: epoch},
		CommitPlan{Place: []Placement{{Workload: "gone", Generation: 1, Revision: 1, Node: nodeID("pi")}},
			Unplaced: map[string]string{"web": "no room"}, Now: epoch},
		SetNodeState{ID: nodeID("pi"), From: api.NodeReady, To: api.NodeDown, Reason: "silent", Now: epoch},
		DeleteWorkload{Name: "gone", Now: epoch},
	)
	return c
}

func written(t testing.TB, s *Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSnapshotHoldsEverything(t *testing.T) {
	c := lived(t)
	text := written(t, c.Store)
	for _, l := range layouts {
		if !strings.Contains(text, `{"table":"`+l.name+`"`) {
			t.Errorf("table %s is empty, so it is not tested", l.name)
		}
	}
	other := New()
	old, changed := other.Watch()
	if err := other.Restore(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if !isClosed(changed) || len(old.Nodes()) != 0 {
		t.Error("restoring woke nobody, or changed an old view")
	}
	if other.View().Index() != c.index {
		t.Errorf("index %d, want %d", other.View().Index(), c.index)
	}
	if got := written(t, other); got != text {
		t.Errorf("after restoring:\n%s\nwant:\n%s", got, text)
	}
}

func TestDamagedSnapshotChangesNothing(t *testing.T) {
	good := written(t, lived(t).Store)
	s := webOn(t, "box").Store
	before := written(t, s)
	refuse := func(what, text string) {
		t.Helper()
		if err := s.Restore(strings.NewReader(text)); err == nil {
			t.Fatalf("%s: it was restored", what)
		}
	}
	lines := strings.SplitAfter(good, "\n")
	refuse("empty", "")
	refuse("no header", strings.Join(lines[1:], ""))
	refuse("another version", strings.Replace(good, `"version":1`, `"version":2`, 1))
	for i := range lines[:len(lines)-1] {
		refuse(fmt.Sprintf("without line %d", i), strings.Join(lines[:i], "")+strings.Join(lines[i+1:], ""))
		refuse(fmt.Sprintf("cut before line %d", i), strings.Join(lines[:i], ""))
	}
	for i := 0; i < len(good)-1; i += 31 {
		damaged := []byte(good)
		damaged[i] ^= 1
		refuse(fmt.Sprintf("bit flipped in byte %d", i), string(damaged))
	}
	if written(t, s) != before {
		t.Error("a refused snapshot changed the state")
	}
}

func FuzzRestore(f *testing.F) {
	good := written(f, lived(f).Store)
	f.Add([]byte(good))
	f.Add([]byte(good[:len(good)/2]))
	f.Add([]byte(`{"format":"cloudless-state","version":1,"index":1}` + "\n" + `{"table":"nodes","row":null}` + "\n"))
	f.Add([]byte(`{"format":"cloudless-state","version":1,"index":1}` + "\n" + `{"table":"events","row":{}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New()
		if err := s.Restore(bytes.NewReader(data)); err != nil && s.View().Index() != 0 {
			t.Error("a refused snapshot changed the state")
		}
	})
}
