//go:build linux

package svcnet

import (
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

var http80 = api.Port{Name: "http", Port: 80, Target: 8080}

func TestServiceIsReachedFromHostsAndContainers(t *testing.T) {
	l := newLab(t, "a", "b")
	w := l.world()
	w.service("web", "10.213.1.0", http80)
	web := w.endpoint(t, "web", "web.0.1", "b")
	serveName(t, web.NetnsPath, ":8080", "web.0.1")
	client := l.devices["a"].attach(t, "client.0.1")
	w.publish(t)

	for what, path := range map[string]string{
		"host of another node":      l.devices["a"].path(),
		"container of another node": client.NetnsPath,
		"host of the same node":     l.devices["b"].path(),
		"the replica itself":        web.NetnsPath,
	} {
		if got, err := get(path, "10.213.1.0:80"); err != nil || got != "web.0.1" {
			t.Errorf("from %s: got %q, %v", what, got, err)
		}
	}
}
