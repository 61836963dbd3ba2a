package state

import (
	"fmt"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

func record(name string) RecordEvent {
	return RecordEvent{Event: api.Event{Code: api.CodeLeaderElected, Reason: "Elected", Time: epoch, Object: api.Object{Kind: "node", Name: name}}}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	c := newCluster(t)
	before, changed := c.Watch()
	c.refuse(api.KindNotFound, EnrolNode{ID: "a", Name: "a", Now: c.now}, record("a"), RevokeToken{ID: "none"})
	v := c.View()
	if isClosed(changed) || len(v.Nodes()) != 0 || v.LastEvent() != 0 {
		t.Error("a part of a refused entry was applied")
	}
	if v.Index() != before.Index()+1 {
		t.Errorf("the index is %d", v.Index())
	}
}

func TestCommandsSeeEarlierOnesOfTheirEntry(t *testing.T) {
	c := newCluster(t)
	tok := token("t", 1)
	res := c.must(PutToken{Token: tok, Now: epoch}, redeem(tok, "a", epoch), EnrolNode{ID: "a", Name: "pi", Now: epoch})
	if got, want := codes(res.Events), "CLD5001 t; CLD5002 t; CLD1001 pi; "; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if n, ok := res.Value.(api.Node); !ok || n.Inventory.Name != "pi" || len(res.Values) != 3 {
		t.Errorf("values %+v", res.Values)
	}
	if _, ok := ValueOf[api.Image](res); ok {
		t.Error("found a value that is not there")
	}
}

func TestViewsDoNotChange(t *testing.T) {
	c := newCluster(t)
	c.join("pi")
	old, changed := c.Watch()
	c.must(EnrolNode{ID: "b", Name: "b", Now: c.now})
	if !isClosed(changed) {
		t.Error("the change woke nobody")
	}
	if len(old.Nodes()) != 1 || len(c.View().Nodes()) != 2 {
		t.Errorf("%d and %d nodes", len(old.Nodes()), len(c.View().Nodes()))
	}
	if _, again := c.Watch(); isClosed(again) {
		t.Error("the new channel is closed already")
	}
}

func TestEventsAreARing(t *testing.T) {
	c := newCluster(t)
	batch := make([]Command, 1000)
	for i := range 12 {
		for j := range batch {
			batch[j] = record(fmt.Sprintf("%d", i*1000+j))
		}
		c.must(batch...)
	}
	v := c.View()
	all := v.EventsAfter(0, 2*MaxEvents)
	if len(all) != MaxEvents || all[0].ID != 2001 || v.LastEvent() != 12000 {
		t.Errorf("%d events from %d to %d", len(all), all[0].ID, v.LastEvent())
	}
	if got := v.EventsAfter(11998, 10); len(got) != 2 || got[1].Object.Name != "11999" || got[1].Type != api.EventMembership {
		t.Errorf("after 11998: %+v", got)
	}
	if v.EventsAfter(^uint64(0), 10) != nil || v.EventsAfter(0, 0) != nil {
		t.Error("there is something after the end")
	}
}

func TestRecordEventIsValidated(t *testing.T) {
	for name, spoil := range map[string]func(*api.Event){
		"unknown code": func(e *api.Event) { e.Code = "CLD9999" },
		"no code":      func(e *api.Event) { e.Code = "" },
		"no reason":    func(e *api.Event) { e.Reason = "" },
		"no object":    func(e *api.Event) { e.Object = api.Object{} },
		"empty field":  func(e *api.Event) { e.Fields = map[string]string{"": "x"} },
	} {
		cmd := record("x")
		spoil(&cmd.Event)
		if res := New().Apply(1, []Command{cmd}); api.KindOf(res.Err) != api.KindInvalid {
			t.Errorf("%s: %v", name, res.Err)
		}
	}
}
