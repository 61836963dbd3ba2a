package state

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/cloudless-project/cloudless/api"
)

// Command is a change to the state. Its fields are the whole input: apply
// looks at nothing but them and the tables.
type Command interface {
	// apply validates the command against the tables, changes them and returns
	// the command's value, or an *api.Error.
	apply(t *tx) (value any, err error)
}

// kinds is the table of all commands. The names are on disk in every Raft log:
// they never change.
var kinds = []kind{
	command[CreateCluster]("cluster.create"),
	command[RecordEvent]("event.record"),
	command[PutToken]("token.put"),
	command[RevokeToken]("token.revoke"),
	command[RedeemToken]("token.redeem"),
	command[EnrolNode]("node.enrol"),
	command[ReportNode]("node.report"),
	command[SetNodeState]("node.state"),
	command[UpdateNode]("node.update"),
	command[RemoveNode]("node.remove"),
	command[SetVoter]("node.voter"),
	command[SetAnchor]("node.anchor"),
	command[SetAnchorPolicy]("node.anchor_policy"),
	command[RestoreCluster]("cluster.restore"),
	command[SetRecoveryKey]("cluster.recovery_key"),
	command[AddAuthority]("authority.add"),
	command[AdvanceAuthority]("authority.advance"),
	command[SetNodeProblem]("node.problem"),
	command[PutWorkload]("workload.put"),
	command[ScaleWorkload]("workload.scale"),
	command[RestartWorkload]("workload.restart"),
	command[DeleteWorkload]("workload.delete"),
	command[CommitPlan]("plan.commit"),
	command[PutImage]("image.put"),
	command[RemoveImage]("image.remove"),
}

type kind struct {
	name   string
	goType reflect.Type
	decode func([]byte) (Command, error)
}

func command[C Command](name string) kind {
	return kind{name, reflect.TypeFor[C](), func(b []byte) (Command, error) {
		var c C
		err := strictJSON(b, &c)
		return c, err
	}}
}

var (
	kindByName = indexKinds(func(k kind) string { return k.name })
	kindByType = indexKinds(func(k kind) reflect.Type { return k.goType })
)

func indexKinds[K comparable](key func(kind) K) map[K]kind {
	m := make(map[K]kind, len(kinds))
	for _, k := range kinds {
		m[key(k)] = k
	}
	return m
}

// envelope is how a command lies in the log.
type envelope struct {
	Type string          `json:"type"`
	Body json.RawMessage `json:"body"`
}

// Encode returns the commands as the data of one Raft entry. It refuses more
// than MaxCommands of them or MaxEncoded bytes with KindExhausted.
func Encode(cmds []Command) ([]byte, error) {
	if len(cmds) > MaxCommands {
		return nil, api.Errorf(api.KindExhausted, "%d commands at once are more than %d", len(cmds), MaxCommands)
	}
	list := make([]envelope, len(cmds))
	for i, c := range cmds {
		k, ok := kindByType[reflect.TypeOf(c)]
		if !ok {
			return nil, fmt.Errorf("encode command: %T is not in the table of commands", c)
		}
		body, err := json.Marshal(c)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", k.name, err)
		}
		list[i] = envelope{k.name, body}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encode commands: %w", err)
	}
	if len(data) > MaxEncoded {
		return nil, api.Errorf(api.KindExhausted, "a change of %d bytes is larger than %d", len(data), MaxEncoded).
			WithHint("split it into smaller ones")
	}
	return data, nil
}

// Decode is the inverse of Encode. It is strict: a type or field that this
// version does not know is an error, because an anchor that skipped it would
// silently hold another state than its fellows.
func Decode(data []byte) ([]Command, error) {
	if len(data) > MaxEncoded {
		return nil, fmt.Errorf("decode commands: %d bytes are more than %d", len(data), MaxEncoded)
	}
	var list []envelope
	if err := strictJSON(data, &list); err != nil {
		return nil, fmt.Errorf("decode commands: %w", err)
	}
	if len(list) > MaxCommands {
		return nil, fmt.Errorf("decode commands: %d are more than %d", len(list), MaxCommands)
	}
	cmds := make([]Command, len(list))
	for i, e := range list {
		k, ok := kindByName[e.Type]
		if !ok {
			return nil, fmt.Errorf("decode commands: unknown type %q", clip(e.Type))
		}
		c, err := k.decode(e.Body)
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", k.name, err)
		}
		cmds[i] = c
	}
	return cmds, nil
}
