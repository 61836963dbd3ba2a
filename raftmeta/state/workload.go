package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

const maxPorts = 64

// PutWorkload creates a workload or changes it. Its value is the api.Workload.
// The revision grows when anything of the spec but the number of replicas
// changes; a workload with ports gets a service. A workload that is being
// deleted comes back to life, as a new revision.
type PutWorkload struct {
	Name          string            `json:"name"`
	Labels        map[string]string `json:"labels,omitempty"`
	Spec          api.WorkloadSpec  `json:"spec"`
	ExpectVersion uint64            `json:"expect_version,omitempty"` // 0 = whatever there is
	Now           time.Time         `json:"now"`
}

func (c PutWorkload) apply(t *tx) (any, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	old := workloads.get(t.txn, c.Name)
	if old == nil {
		if c.ExpectVersion != 0 {
			return nil, api.Errorf(api.KindConflict, "workload %s was deleted since it was read", c.Name)
		}
		if len(workloads.all(t.txn)) >= MaxWorkloads {
			return nil, api.Errorf(api.KindExhausted, "there are %d workloads already", MaxWorkloads)
		}
		old = &api.Workload{Name: c.Name, CreatedAt: c.Now}
	}
	if err := checkVersion("workload", c.Name, old.Version, c.ExpectVersion); err != nil {
		return nil, err
	}
	w := *old
	w.Labels, w.Spec, w.Deleted = c.Labels, c.Spec, false
	if w.Revision == 0 || old.Deleted || !sameRevision(w.Spec, old.Spec) {
		w.Revision++
	}
	if w.Revision == old.Revision && w.Spec.Replicas == old.Spec.Replicas && maps.Equal(w.Labels, old.Labels) {
		return *old, nil
	}
	if err := t.syncService(&w); err != nil {
		return nil, err
	}
	w.UpdatedAt, w.Version = c.Now, t.index
	workloads.put(t, &w)
	t.workloadEvent(api.CodeWorkloadApplied, c.Now, "Applied", w.Name,
		"workload %s: revision %d, %s of %s", w.Name, w.Revision, countReplicas(w.Spec.Replicas), w.Spec.Image)
	return w, nil
}

// check refuses what would break the state. What makes a good manifest is for
// the api package to say, before the command is made.
func (c PutWorkload) check() error {
	if err := checkName("name", c.Name); err != nil {
		return err
	}
	if err := checkLabels("labels", c.Labels); err != nil {
		return err
	}
	if c.Spec.Image == "" {
		return api.Invalid("spec.image", "is missing")
	}
	if len(c.Spec.Ports) > maxPorts {
		return api.Invalid("spec.ports", "%d ports are more than %d", len(c.Spec.Ports), maxPorts)
	}
	return checkReplicas("spec.replicas", c.Spec.Replicas)
}

func checkReplicas(field string, n int) error {
	if n < 0 || n > MaxReplicas {
		return api.Invalid(field, "%d is not between 0 and %d", n, MaxReplicas)
	}
	return nil
}

// countReplicas says how many replicas, in words for people.
func countReplicas(n int) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}

func sameRevision(a, b api.WorkloadSpec) bool {
	a.Replicas, b.Replicas = 0, 0
	return equalJSON(a, b)
}

// equalJSON compares values as they are on disk, where empty and nil are one.
func equalJSON(a, b any) bool {
	ja, errA := json.Marshal(a)
	jb, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(ja, jb)
}

// ScaleWorkload changes the number of replicas and nothing else. Its value is
// the api.Workload.
type ScaleWorkload struct {
	Name          string    `json:"name"`
	Replicas      int       `json:"replicas"`
	ExpectVersion uint64    `json:"expect_version,omitempty"`
	Now           time.Time `json:"now"`
}

func (c ScaleWorkload) apply(t *tx) (any, error) {
	if err := checkReplicas("replicas", c.Replicas); err != nil {
		return nil, err
	}
	old, err := t.liveWorkload(c.Name, c.ExpectVersion)
	if err != nil || old.Spec.Replicas == c.Replicas {
		return valueOrNil(old), err
	}
	w := *old
	w.Spec.Replicas, w.UpdatedAt, w.Version = c.Replicas, c.Now, t.index
	workloads.put(t, &w)
	t.workloadEvent(api.CodeWorkloadScaled, c.Now, "Scaled", w.Name,
		"workload %s: %s instead of %d", w.Name, countReplicas(c.Replicas), old.Spec.Replicas)
	return w, nil
}

// RestartWorkload makes a new revision of the same spec, so that every replica is
// replaced within the limits of an update. Its value is the api.Workload.
type RestartWorkload struct {
	Name          string    `json:"name"`
	ExpectVersion uint64    `json:"expect_version,omitempty"`
	Now           time.Time `json:"now"`
}

func (c RestartWorkload) apply(t *tx) (any, error) {
	old, err := t.liveWorkload(c.Name, c.ExpectVersion)
	if err != nil {
		return nil, err
	}
	w := *old
	w.Revision++
	w.UpdatedAt, w.Version = c.Now, t.index
	workloads.put(t, &w)
	t.workloadEvent(api.CodeWorkloadApplied, c.Now, "Restarted", w.Name, "workload %s: revision %d, the same once more", w.Name, w.Revision)
	return w, nil
}

// DeleteWorkload marks a workload as deleted. Its replicas are stopped by the
// plans that follow; when the last one has ended, the workload, its service
// and its history vanish.
type DeleteWorkload struct {
	Name          string    `json:"name"`
	ExpectVersion uint64    `json:"expect_version,omitempty"`
	Now           time.Time `json:"now"`
}

func (c DeleteWorkload) apply(t *tx) (any, error) {
	old, err := t.liveWorkload(c.Name, c.ExpectVersion)
	if err != nil {
		return nil, err
	}
	w := *old
	w.Deleted, w.UpdatedAt, w.Version = true, c.Now, t.index
	workloads.put(t, &w)
	t.reap(c.Name, c.Now)
	return nil, nil
}

// liveWorkload returns a workload that is not being deleted.
func (t *tx) liveWorkload(name string, version uint64) (*api.Workload, error) {
	w := workloads.get(t.txn, name)
	if w == nil || w.Deleted {
		return nil, notFound("workload", name)
	}
	return w, checkVersion("workload", name, w.Version, version)
}

func valueOrNil(w *api.Workload) any {
	if w == nil {
		return nil
	}
	return *w
}

// reap removes a deleted workload once none of its replicas can run any more.
func (t *tx) reap(name string, now time.Time) {
	w := workloads.get(t.txn, name)
	if w == nil || !w.Deleted {
		return
	}
	rows := replicas.list(t.txn, "slot", pair(name, ""))
	for _, r := range rows {
		if !r.State.Terminal() {
			return
		}
	}
	for _, r := range rows {
		t.forget(r)
	}
	t.buryGenerations(name)
	if s := services.get(t.txn, name); s != nil {
		services.delete(t, s)
	}
	if n := notes.get(t.txn, name); n != nil {
		notes.delete(t, n)
	}
	workloads.delete(t, w)
	t.workloadEvent(api.CodeWorkloadDeleted, now, "Deleted", name, "workload %s is gone", name)
}

func (t *tx) workloadEvent(code api.Code, now time.Time, reason, name, format string, args ...any) {
	t.event(code, now, reason, api.Object{Kind: "workload", Name: name}, "", format, args...)
}
