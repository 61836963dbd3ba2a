package api

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The words that a spec may use; StrategyBinpack and RestartAlways have theirs
// beside the types.
const (
	TopologyNode   = "node"
	TopologyZone   = "zone"
	TopologyRegion = "region"

	OpIn           = "In"
	OpNotIn        = "NotIn"
	OpExists       = "Exists"
	OpDoesNotExist = "DoesNotExist"

	EffectNoSchedule       = "NoSchedule"
	EffectPreferNoSchedule = "PreferNoSchedule"

	ProtocolTCP = "tcp"
	ProtocolUDP = "udp"

	OrderStartFirst = "start-first"
	OrderStopFirst  = "stop-first"

	OnFailurePause    = "pause"
	OnFailureRollback = "rollback"

	DisconnectReplace = "replace"
	DisconnectKeep    = "keep"
	DisconnectStop    = "stop"
)

const (
	maxName   = 63 // a DNS label
	maxLabels = 64
)

var (
	namePattern     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	labelKeyPattern = regexp.MustCompile(`^[A-Za-z0-9]([-_./A-Za-z0-9]*[A-Za-z0-9])?$`)
	labelValPattern = regexp.MustCompile(`^([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?$`)
)

// ValidateName reports whether name can name a node, a workload or a port: it
// becomes a part of DNS names. The error names the field.
func ValidateName(field, name string) error {
	switch {
	case name == "":
		return Invalid(field, "a name is needed")
	case len(name) > maxName:
		return Invalid(field, "a name has at most %d characters, this one has %d", maxName, len(name))
	case !namePattern.MatchString(name):
		return Invalid(field, "%q is not a name: use lower-case letters, digits and dashes, with a letter or digit at both ends", clip(name))
	}
	return nil
}

// ValidateLabels reports every key and value that cannot be a label.
func ValidateLabels(field string, labels map[string]string) error {
	var p problems
	p.atMost(field, "labels", len(labels), maxLabels)
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if p.labelKey(field, key) {
			p.labelValue(field+"."+key, labels[key])
		}
	}
	return p.join()
}

// problems collects everything that is wrong, so that a person mends it at once.
type problems struct {
	errs []error
}

func (p *problems) add(field, format string, args ...any) {
	p.errs = append(p.errs, Invalid(field, format, args...))
}

func (p *problems) addHint(field, hint, format string, args ...any) {
	p.errs = append(p.errs, Invalid(field, format, args...).WithHint("%s", hint))
}

func (p *problems) unsupported(field, hint, format string, args ...any) {
	p.errs = append(p.errs, &Error{Kind: KindUnsupported, Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// check adds err under a field, keeping its message and hint.
func (p *problems) check(field string, err error) {
	var e *Error
	if errors.As(err, &e) {
		c := *e
		c.Field = field
		p.errs = append(p.errs, &c)
	}
}

func (p *problems) join() error { return errors.Join(p.errs...) }

// oneOf demands that value is one of the allowed words.
func (p *problems) oneOf(field, value string, allowed ...string) bool {
	if slices.Contains(allowed, value) {
		return true
	}
	p.add(field, "%q is not one of %s", clip(value), strings.Join(allowed, ", "))
	return false
}

// atMost demands that a list is not too long to look at. Nobody looks at the
// items of one that is.
func (p *problems) atMost(field, what string, n, most int) bool {
	if n <= most {
		return true
	}
	p.add(field, "%d %s are too many, at most %d are allowed", n, what, most)
	return false
}

func (p *problems) labelKey(field, key string) bool {
	if len(key) <= maxName && labelKeyPattern.MatchString(key) {
		return true
	}
	p.add(field, "%q is not a label key: use up to %d letters, digits, dashes, dots, slashes and underscores", clip(key), maxName)
	return false
}

func (p *problems) labelValue(field, value string) {
	if len(value) > maxName || !labelValPattern.MatchString(value) {
		p.add(field, "%q is not a label value: use up to %d letters, digits, dashes, dots and underscores", clip(value), maxName)
	}
}

// between demands least ≤ v ≤ most.
func between[T ~int | ~int64](p *problems, field string, v, least, most T) bool {
	if v >= least && v <= most {
		return true
	}
	p.add(field, "%v is out of range: it must be from %v to %v", display(v), display(least), display(most))
	return false
}

// display lets a quantity print in its own text form.
func display(v any) any {
	if d, ok := v.(Duration); ok {
		return d.Std()
	}
	return v
}

// clip keeps a message readable whatever it quotes.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
