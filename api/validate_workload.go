package api

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The bounds of a spec. They are generous for people and small enough that the
// spec of every replica fits into the replicated state.
const (
	MaxReplicas   = 1000
	maxArgs       = 256
	maxArgBytes   = 32 << 10
	maxEnv        = 256
	maxTotalBytes = 128 << 10 // of command, args and env together
	maxPath       = 4096
	maxPorts      = 64
	maxCPU        = CPU(1_000_000)
	minMemory     = Bytes(4 << 20) // less, and runc itself does not start
	maxBytes      = Bytes(1 << 50)
	maxBandwidth  = Bandwidth(1e12)
	maxPIDs       = 4 << 20 // the kernel's own bound
)

var (
	envPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	userPattern = regexp.MustCompile(`^([0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31})(:([0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31}))?$`)
)

// Validate reports every problem of a spec whose defaults are set, as joined
// *Error values. Their fields start with prefix, which is "spec" for a manifest.
func (s *WorkloadSpec) Validate(prefix string) error {
	p, at := &problems{}, fieldAt(prefix)
	_, err := NormaliseImageRef(s.Image)
	p.check(at("image"), err)
	s.validateProcess(p, at)
	between(p, at("replicas"), s.Replicas, 0, MaxReplicas)
	s.Resources.validate(p, fieldAt(at("resources")))
	s.Placement.validate(p, fieldAt(at("placement")))
	validatePorts(p, at("ports"), s.Ports)
	s.Probes.Readiness.validate(p, at("probes.readiness"))
	s.Probes.Liveness.validate(p, at("probes.liveness"))
	s.Restart.validate(p, fieldAt(at("restart")))
	s.validateUpdate(p, fieldAt(at("update")))
	s.OnDisconnect.validate(p, fieldAt(at("onDisconnect")))
	s.validateSecurity(p, fieldAt(at("security")))
	return p.join()
}

// fieldAt returns a function that names the fields below prefix.
func fieldAt(prefix string) func(string) string {
	return func(field string) string {
		if prefix == "" {
			return field
		}
		return prefix + "." + field
	}
}

func (s *WorkloadSpec) validateProcess(p *problems, at func(string) string) {
	total := validateArgs(p, at("command"), s.Command) + validateArgs(p, at("args"), s.Args) + validateEnv(p, at("env"), s.Env)
	if total > maxTotalBytes {
		p.add(at("args"), "command, args and env have %d bytes together, at most %d are allowed", total, maxTotalBytes)
	}
	if s.WorkingDir != "" && (!strings.HasPrefix(s.WorkingDir, "/") || len(s.WorkingDir) > maxPath || strings.ContainsRune(s.WorkingDir, 0)) {
		p.add(at("workingDir"), "%q is not an absolute path", clip(s.WorkingDir))
	}
	if s.User != "" && !userPattern.MatchString(s.User) {
		p.add(at("user"), "%q is not a user: write a uid, uid:gid or a name in the image", clip(s.User))
	}
}

// validateArgs returns the number of bytes of the arguments.
func validateArgs(p *problems, field string, args []string) (total int) {
	p.atMost(field, "arguments", len(args), maxArgs)
	for i, arg := range args {
		total += len(arg)
		validateArg(p, fmt.Sprintf("%s[%d]", field, i), arg)
	}
	return total
}

func validateArg(p *problems, field, arg string) {
	if len(arg) > maxArgBytes {
		p.add(field, "%d bytes are too many, at most %d are allowed", len(arg), maxArgBytes)
	}
	if strings.ContainsRune(arg, 0) {
		p.add(field, "a NUL character cannot be passed to a process")
	}
}

// validateEnv returns the number of bytes of the environment.
func validateEnv(p *problems, field string, env map[string]string) (total int) {
	p.atMost(field, "variables", len(env), maxEnv)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		total += len(name) + len(env[name])
		if len(name) > maxArgBytes || !envPattern.MatchString(name) {
			p.add(field, "%q is not the name of a variable: use letters, digits and underscores, not starting with a digit", clip(name))
			continue
		}
		validateArg(p, field+"."+name, env[name])
	}
	return total
}

func (r *ResourceSpec) validate(p *problems, at func(string) string) {
	between(p, at("cpu"), r.CPU, 1, maxCPU)
	between(p, at("memory"), r.Memory, minMemory, maxBytes)
	between(p, at("storage"), r.Storage, 0, maxBytes)
	between(p, at("bandwidth"), r.Bandwidth, 0, maxBandwidth)
	between(p, at("pids"), r.PIDs, 1, maxPIDs)
	if r.Limits == nil {
		return
	}
	if r.Limits.CPU != 0 && between(p, at("limits.cpu"), r.Limits.CPU, 1, maxCPU) && r.Limits.CPU < r.CPU {
		p.add(at("limits.cpu"), "the limit %v is below the request %v", r.Limits.CPU, r.CPU)
	}
	if r.Limits.Memory != 0 && between(p, at("limits.memory"), r.Limits.Memory, minMemory, maxBytes) && r.Limits.Memory < r.Memory {
		p.add(at("limits.memory"), "the limit %v is below the request %v", r.Limits.Memory, r.Memory)
	}
}

func validatePorts(p *problems, field string, ports []Port) {
	if !p.atMost(field, "ports", len(ports), maxPorts) {
		return
	}
	type wire struct {
		protocol string
		port     int
	}
	taken, names := map[wire]int{}, map[string]int{}
	for i := range ports {
		port, at := &ports[i], fieldAt(fmt.Sprintf("%s[%d]", field, i))
		inRange := between(p, at("port"), port.Port, 1, 65535)
		if inRange { // else the target, which is the same by default, repeats it
			between(p, at("target"), port.Target, 1, 65535)
			p.check(at("name"), ValidateName("", port.Name))
		}
		p.oneOf(at("protocol"), port.Protocol, ProtocolTCP, ProtocolUDP)
		w := wire{port.Protocol, port.Port}
		if first, ok := taken[w]; ok && inRange {
			p.add(at("port"), "%d/%s is taken by %s[%d]", port.Port, port.Protocol, field, first)
		} else if first, ok := names[port.Name]; ok {
			p.add(at("name"), "%q is taken by %s[%d]", clip(port.Name), field, first)
		}
		taken[w], names[port.Name] = i, i
	}
}

func (r *RestartPolicy) validate(p *problems, at func(string) string) {
	p.oneOf(at("policy"), r.Policy, RestartAlways, RestartOnFailure, RestartNever)
	const least, most = Duration(10 * time.Millisecond), Duration(time.Hour)
	ok := between(p, at("backoff.initial"), r.Backoff.Initial, least, most)
	if between(p, at("backoff.max"), r.Backoff.Max, least, most) && ok && r.Backoff.Max < r.Backoff.Initial {
		p.add(at("backoff.max"), "%v is below backoff.initial, which is %v", r.Backoff.Max.Std(), r.Backoff.Initial.Std())
	}
}

func (s *WorkloadSpec) validateUpdate(p *problems, at func(string) string) {
	u := &s.Update
	between(p, at("maxSurge"), u.MaxSurge, 1, MaxReplicas)
	p.oneOf(at("order"), u.Order, OrderStartFirst, OrderStopFirst)
	between(p, at("minHealthy"), u.MinHealthy, 0, Duration(time.Hour))
	between(p, at("healthyDeadline"), u.HealthyDeadline, Duration(time.Second), Duration(24*time.Hour))
	if u.HealthyDeadline <= u.MinHealthy {
		p.add(at("healthyDeadline"), "%v leaves no time: minHealthy alone is %v", u.HealthyDeadline.Std(), u.MinHealthy.Std())
	}
	if u.OnFailure == OnFailureRollback {
		p.unsupported(at("onFailure"), "leave it out or write pause: a failing rollout stops and the old revision goes on serving",
			"rollback is not supported by this version")
	} else if u.OnFailure != "" {
		p.oneOf(at("onFailure"), u.OnFailure, OnFailurePause)
	}
	if u.MinAvailable == nil || !between(p, at("minAvailable"), *u.MinAvailable, 0, s.Replicas) {
		return
	}
	if s.Replicas > 0 && *u.MinAvailable == s.Replicas && u.Order == OrderStopFirst {
		p.addHint(at("minAvailable"), "write order: start-first, or lower minAvailable",
			"all %d replicas may never stop, so order stop-first could replace none of them", s.Replicas)
	}
}

func (d *OnDisconnect) validate(p *problems, at func(string) string) {
	p.oneOf(at("mode"), d.Mode, DisconnectReplace, DisconnectKeep, DisconnectStop)
	between(p, at("after"), d.After, 0, Duration(7*24*time.Hour))
	if d.Mode == DisconnectStop && d.After < LeastDisconnectStop {
		p.add(at("after"), "must be at least %s with mode stop: a node hears from the anchors every few seconds", LeastDisconnectStop.Std())
	}
}
