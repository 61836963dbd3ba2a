package state

import (
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-memdb"

	"github.com/cloudless-project/cloudless/api"
)

// tx is the change that one Raft entry makes: the tables as the commands so
// far left them, and what to tell about it.
type tx struct {
	txn     *memdb.Txn
	index   uint64
	changed bool
	events  []api.Event
}

// run applies one command. A panic in a command is a fault of this package; it
// is the same on every anchor, so it is refused like an invalid command rather
// than letting it kill every anchor at each replay of the log.
func (t *tx) run(c Command) (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			value, err = nil, api.Errorf(api.KindInternal, "apply %T: %v", c, p)
		}
	}()
	return c.apply(t)
}

// event records something that happened.
func (t *tx) event(code api.Code, now time.Time, reason string, object api.Object, node api.NodeID, format string, args ...any) {
	t.emit(api.Event{Code: code, Time: now, Reason: reason, Object: object, Node: node, Message: fmt.Sprintf(format, args...)})
}

func (t *tx) emit(e api.Event) {
	e.ID = 1
	if last := events.last(t.txn); last != nil {
		e.ID = last.ID + 1
	}
	e.Type = typeOf(e.Code)
	e.Message = clip(e.Message)
	events.put(t, &e)
	if e.ID > MaxEvents {
		if old := events.get(t.txn, number(e.ID-MaxEvents)); old != nil {
			events.delete(t, old)
		}
	}
	t.events = append(t.events, e)
}

// nodeName returns what people call a node.
func (t *tx) nodeName(id api.NodeID) string {
	if n := nodes.get(t.txn, string(id)); n != nil {
		return n.Inventory.Name
	}
	return string(id)
}

// clip cuts text that is longer than a message has to be, between runes.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// checkID refuses identifiers that would not make a key.
func checkID(field, id string) error {
	if id == "" || len(id) > maxID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return api.Invalid(field, "%q is not an identifier of 1 to %d characters", clip(id), maxID)
	}
	return nil
}

// checkName refuses what is not a DNS label.
func checkName(field, name string) error {
	if name == "" || len(name) > maxName || strings.Trim(name, labelChars) != "" ||
		strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") {
		return api.Invalid(field, "%q is not a name: use 1 to %d lower-case letters, digits and dashes", clip(name), maxName)
	}
	return nil
}

const labelChars = "abcdefghijklmnopqrstuvwxyz0123456789-"

func checkLabels(field string, labels map[string]string) error {
	if len(labels) > MaxLabels {
		return api.Invalid(field, "%d labels are more than %d", len(labels), MaxLabels)
	}
	for k, v := range labels {
		if k == "" || len(k) > maxID || len(v) > maxText {
			return api.Invalid(field, "the label %q is empty or too long", clip(k))
		}
	}
	return nil
}

// checkVersion is the compare of compare-and-set; want 0 means any.
func checkVersion(kind, name string, have, want uint64) error {
	if want != 0 && have != want {
		return api.Errorf(api.KindConflict, "%s %s has changed since it was read", kind, name).
			WithHint("read it again and retry")
	}
	return nil
}

func notFound(kind, name string) error {
	e := api.Errorf(api.KindNotFound, "there is no %s %s", kind, clip(name))
	if kind == "cluster" {
		return e // nobody can name another one
	}
	return e.WithHint("see what there is with: cloudless %s list", kind)
}

// edited returns labels with changes made, sharing nothing with the original.
func edited(labels, set map[string]string, unset []string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, set)
	for _, k := range unset {
		delete(out, k)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
