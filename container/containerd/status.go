//go:build linux

package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// codeLost is the exit code of a run that nobody saw end.
const codeLost = 255

// Status implements container.Containers.
func (r *Runtime) Status(ctx context.Context, id string) (container.Status, error) {
	record, err := r.record(ctx, id)
	if err != nil {
		return container.Status{}, err
	}
	reply, err := r.client.TaskService().Get(ctx, &tasksapi.GetRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return container.Status{}, r.explain(err, "ask for", "container "+id)
	}
	return r.status(record, reply.GetProcess()), nil
}

// record returns containerd's record of a container that is ours.
func (r *Runtime) record(ctx context.Context, id string) (containers.Container, error) {
	if err := container.ValidateID(id); err != nil {
		return containers.Container{}, err
	}
	record, err := r.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) || err == nil && record.Labels[labelSpec] == "" {
		return containers.Container{}, api.Errorf(api.KindNotFound, "no container %s on this node", id)
	}
	return record, r.explain(err, "look up", "container "+id)
}

// List implements container.Containers.
func (r *Runtime) List(ctx context.Context) ([]container.Status, error) {
	records, err := r.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q", labelSpec))
	if err != nil {
		return nil, r.explain(err, "list", "containers")
	}
	reply, err := r.client.TaskService().List(ctx, &tasksapi.ListTasksRequest{})
	if err = errgrpc.ToNative(err); err != nil {
		return nil, r.explain(err, "list", "tasks")
	}
	tasks := make(map[string]*task.Process, len(reply.Tasks))
	for _, t := range reply.Tasks {
		tasks[t.ID] = t
	}
	list := make([]container.Status, 0, len(records))
	for _, record := range records {
		list = append(list, r.status(record, tasks[record.ID]))
	}
	slices.SortFunc(list, func(a, b container.Status) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// status puts together what containerd's record and its task say; t is nil when
// there is no task.
func (r *Runtime) status(record containers.Container, t *task.Process) container.Status {
	s := container.Status{ID: record.ID, Image: record.Image, State: container.StateCreated}
	for k, v := range record.Labels {
		if name, ok := strings.CutPrefix(k, labelCaller); ok {
			if s.Labels == nil {
				s.Labels = make(map[string]string)
			}
			s.Labels[name] = strings.TrimPrefix(v, "=")
		}
	}
	started, err := time.Parse(time.RFC3339Nano, record.Labels[labelStarted])
	if err != nil {
		return s // never started, or about to be
	}
	s.StartedAt = started
	var kept container.Exit
	switch {
	case json.Unmarshal([]byte(record.Labels[labelExit]), &kept) == nil:
		s.State, s.Exit = container.StateStopped, &kept
	case t == nil:
		s.State = container.StateStopped
		s.Exit = &container.Exit{ID: s.ID, StartedAt: started, Code: codeLost, Reason: container.ReasonLost}
	case t.Status == task.Status_STOPPED:
		s.State = container.StateStopped
		s.Exit = r.exit(s, t)
	case t.Status != task.Status_CREATED:
		s.State, s.PID = container.StateRunning, int(t.Pid)
	default:
		s.State = container.StateCreated
	}
	return s
}

// keepExit notes how a run ended in the container's record. containerd forgets
// finished tasks when it or the host restarts (since 1.7), and a job that was
// completed must not look lost then.
func (r *Runtime) keepExit(ctx context.Context, e *container.Exit) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode exit: %w", err)
	}
	record := containers.Container{ID: e.ID, Labels: map[string]string{labelExit: string(data)}}
	_, err = r.client.ContainerService().Update(ctx, record, "labels."+labelExit)
	return r.explain(err, "keep the exit of", "container "+e.ID)
}

func (r *Runtime) exit(s container.Status, t *task.Process) *container.Exit {
	e := &container.Exit{ID: s.ID, StartedAt: s.StartedAt, Code: int(t.ExitStatus), Reason: container.ReasonError}
	if t.ExitedAt != nil {
		e.At = t.ExitedAt.AsTime()
	}
	switch {
	case e.Code == 0:
		e.Reason = container.ReasonCompleted
	case e.Code == 128+9 && r.host.oomKills(r.cgroup(s.ID)) > 0:
		e.Reason = container.ReasonOOM
	}
	return e
}
