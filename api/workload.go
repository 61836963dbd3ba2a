package api

import "time"

// WorkloadSpec is what a user asks for: a container image and how to run it.
// Its JSON form is the manifest's spec.
type WorkloadSpec struct {
	Image        string            `json:"image"`
	Command      []string          `json:"command,omitempty"`
	Args         []string          `json:"args,omitempty"`
	Env          map[string]string `json:"env,omitempty"`
	WorkingDir   string            `json:"workingDir,omitempty"`
	User         string            `json:"user,omitempty"` // uid, uid:gid or a name in the image
	Replicas     int               `json:"replicas"`
	Resources    ResourceSpec      `json:"resources,omitzero"`
	Placement    Placement         `json:"placement,omitzero"`
	Ports        []Port            `json:"ports,omitempty"`
	Probes       Probes            `json:"probes,omitzero"`
	Restart      RestartPolicy     `json:"restart,omitzero"`
	Update       UpdatePolicy      `json:"update,omitzero"`
	OnDisconnect OnDisconnect      `json:"onDisconnect,omitzero"`
	Security     SecuritySpec      `json:"security,omitzero"`
}

// ResourceSpec is what one replica requests and may use at most. Limits equal
// the requests where they are not given.
type ResourceSpec struct {
	CPU       CPU        `json:"cpu,omitempty"`
	Memory    Bytes      `json:"memory,omitempty"`
	Storage   Bytes      `json:"storage,omitempty"`
	Bandwidth Bandwidth  `json:"bandwidth,omitempty"`
	PIDs      int64      `json:"pids,omitempty"` // default DefaultPIDs
	Limits    *LimitSpec `json:"limits,omitempty"`
}

// LimitSpec overrides the limit of a resource; zero means the request.
type LimitSpec struct {
	CPU    CPU   `json:"cpu,omitempty"`
	Memory Bytes `json:"memory,omitempty"`
}

// Requests returns what one replica reserves on its node.
func (r ResourceSpec) Requests() Resources {
	return Resources{CPU: r.CPU, Memory: r.Memory, Storage: r.Storage, Bandwidth: r.Bandwidth}
}

// The strategies of placement.
const (
	StrategyBinpack = "binpack"
	StrategySpread  = "spread"
)

// Placement says where replicas may and should run.
type Placement struct {
	Strategy     string         `json:"strategy,omitempty"` // binpack (default) or spread
	SpreadBy     string         `json:"spreadBy,omitempty"` // topology label, default node
	Affinity     []Affinity     `json:"affinity,omitempty"`
	AntiAffinity []AntiAffinity `json:"antiAffinity,omitempty"`
	Tolerations  []Toleration   `json:"tolerations,omitempty"`
}

// Affinity prefers, or requires, nodes by a label. Operators: In, NotIn,
// Exists, DoesNotExist.
type Affinity struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values,omitempty"`
	Weight   int      `json:"weight,omitempty"` // 1–100, default 50
	Required bool     `json:"required,omitempty"`
}

// AntiAffinity keeps replicas away from those of a workload (its own by
// default) within a topology: node, zone, region or a label.
type AntiAffinity struct {
	Workload string `json:"workload,omitempty"`
	Topology string `json:"topology"`
	Required bool   `json:"required,omitempty"`
}

// Toleration lets a replica run where a taint would forbid it.
type Toleration struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect,omitempty"`
}

// Port publishes a port of the replicas under the workload's service.
type Port struct {
	Name     string `json:"name,omitempty"`
	Port     int    `json:"port"`               // of the service
	Target   int    `json:"target,omitempty"`   // in the container, default Port
	Protocol string `json:"protocol,omitempty"` // tcp (default) or udp
}

// Probes says how a node finds out whether a replica works.
type Probes struct {
	Readiness *Probe `json:"readiness,omitempty"`
	Liveness  *Probe `json:"liveness,omitempty"`
}

// Probe asks one question of a replica, again and again. Exactly one of HTTP,
// TCP and Exec is set.
type Probe struct {
	HTTP         *HTTPProbe `json:"http,omitempty"`
	TCP          *TCPProbe  `json:"tcp,omitempty"`
	Exec         *ExecProbe `json:"exec,omitempty"`
	InitialDelay Duration   `json:"initialDelay,omitempty"`
	Period       Duration   `json:"period,omitempty"`   // default 2s
	Timeout      Duration   `json:"timeout,omitempty"`  // default 1s
	Failures     int        `json:"failures,omitempty"` // in a row, default 3
}

// HTTPProbe succeeds on a status of 200–399.
type HTTPProbe struct {
	Path string `json:"path,omitempty"` // default /
	Port int    `json:"port"`
}

// TCPProbe succeeds when the port accepts a connection.
type TCPProbe struct {
	Port int `json:"port"`
}

// ExecProbe succeeds when the command exits 0.
type ExecProbe struct {
	Command []string `json:"command"`
}

// The restart policies.
const (
	RestartAlways    = "always"
	RestartOnFailure = "on-failure"
	RestartNever     = "never"
)

// RestartPolicy says what happens when a replica's process ends.
type RestartPolicy struct {
	Policy  string  `json:"policy,omitempty"` // always (default), on-failure, never
	Backoff Backoff `json:"backoff,omitzero"`
}

// Backoff grows from Initial (default 500ms) to Max (default 60s), doubling.
type Backoff struct {
	Initial Duration `json:"initial,omitempty"`
	Max     Duration `json:"max,omitempty"`
}

// UpdatePolicy says how a new revision replaces the old one.
type UpdatePolicy struct {
	MinAvailable    *int     `json:"minAvailable,omitempty"` // default replicas-1, at least 1 when replicas > 1
	MaxSurge        int      `json:"maxSurge,omitempty"`     // default 1
	Order           string   `json:"order,omitempty"`        // start-first (default) or stop-first
	MinHealthy      Duration `json:"minHealthy,omitempty"`
	HealthyDeadline Duration `json:"healthyDeadline,omitempty"`
	OnFailure       string   `json:"onFailure,omitempty"` // rollback (default) or pause
}

// OnDisconnect says what becomes of replicas in a house that is cut off.
type OnDisconnect struct {
	Mode  string   `json:"mode,omitempty"`  // replace (default), keep or stop
	After Duration `json:"after,omitempty"` // default 30s
}

// SecuritySpec narrows or widens what the process may do.
type SecuritySpec struct {
	RunAsNonRoot   bool         `json:"runAsNonRoot,omitempty"`
	ReadOnlyRootfs *bool        `json:"readOnlyRootfs,omitempty"` // default true
	Capabilities   Capabilities `json:"capabilities,omitzero"`
	Sandbox        string       `json:"sandbox,omitempty"` // default
}

// Capabilities are added to an empty set, by name without CAP_.
type Capabilities struct {
	Add []string `json:"add,omitempty"`
}

// Workload is the authoritative record of one workload.
type Workload struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	Spec      WorkloadSpec      `json:"spec"`
	Revision  int               `json:"revision"` // grows when anything but the number of replicas changes
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`
	Deleted   bool              `json:"deleted,omitempty"` // being torn down
	Version   uint64            `json:"version"`
}

// WorkloadState sums a workload up in a word.
type WorkloadState string

// The states of a workload.
const (
	WorkloadPending     WorkloadState = "pending"     // nothing runs yet
	WorkloadProgressing WorkloadState = "progressing" // on its way
	WorkloadHealthy     WorkloadState = "healthy"     // as many ready as desired, all of this revision
	WorkloadDegraded    WorkloadState = "degraded"    // fewer ready than desired
	WorkloadPaused      WorkloadState = "paused"
	WorkloadFailed      WorkloadState = "failed"
)

// WorkloadStatus is a workload as the command line shows it.
type WorkloadStatus struct {
	Workload
	State    WorkloadState
	Running  int
	Ready    int
	Message  string
	Replicas []Replica
	Rollout  *Rollout // nil when every replica is of the current revision

	StaleSince time.Time // no anchor answered: as of then; else zero
}

// RolloutState is how far a rollout has come.
type RolloutState string

// The states of a rollout. One that is complete is none any more.
const (
	RolloutProgressing RolloutState = "progressing"
	RolloutStopped     RolloutState = "stopped" // the new revision fails; the old one goes on serving
)

// Rollout is the way from older revisions of a workload to the current one.
type Rollout struct {
	State    RolloutState `json:"state"`
	Revision int          `json:"revision"` // that is being rolled out
	From     int          `json:"from"`     // newest of the older ones that still run
	Updated  int          `json:"updated"`  // replicas of the new revision that are ready
	Outdated int          `json:"outdated"` // replicas of older revisions that still run
	Message  string       `json:"message"`  // why it has stopped
}
