package api

import "fmt"

const (
	maxRules  = 32 // of each list
	maxValues = 64
)

func (l *Placement) validate(p *problems, at func(string) string) {
	p.oneOf(at("strategy"), l.Strategy, StrategyBinpack, StrategySpread)
	if l.SpreadBy != "" && p.labelKey(at("spreadBy"), l.SpreadBy) && l.Strategy == StrategyBinpack {
		p.addHint(at("spreadBy"), "write strategy: spread", "strategy %s does not spread", StrategyBinpack)
	}
	if p.atMost(at("affinity"), "rules", len(l.Affinity), maxRules) {
		for i := range l.Affinity {
			l.Affinity[i].validate(p, fieldAt(fmt.Sprintf("%s[%d]", at("affinity"), i)))
		}
	}
	if p.atMost(at("antiAffinity"), "rules", len(l.AntiAffinity), maxRules) {
		for i := range l.AntiAffinity {
			l.AntiAffinity[i].validate(p, fieldAt(fmt.Sprintf("%s[%d]", at("antiAffinity"), i)))
		}
	}
	if p.atMost(at("tolerations"), "tolerations", len(l.Tolerations), maxRules) {
		for i := range l.Tolerations {
			l.Tolerations[i].validate(p, fieldAt(fmt.Sprintf("%s[%d]", at("tolerations"), i)))
		}
	}
}

func (a *Affinity) validate(p *problems, at func(string) string) {
	p.labelKey(at("key"), a.Key)
	if !p.oneOf(at("operator"), a.Operator, OpIn, OpNotIn, OpExists, OpDoesNotExist) {
		return
	}
	compares := a.Operator == OpIn || a.Operator == OpNotIn
	switch {
	case compares && len(a.Values) == 0:
		p.add(at("values"), "operator %s needs values", a.Operator)
	case !compares && len(a.Values) > 0:
		p.add(at("values"), "operator %s takes no values", a.Operator)
	}
	if p.atMost(at("values"), "values", len(a.Values), maxValues) {
		for i, v := range a.Values {
			p.labelValue(fmt.Sprintf("%s[%d]", at("values"), i), v)
		}
	}
	if !a.Required || a.Weight != 0 {
		between(p, at("weight"), a.Weight, 1, 100)
	}
}

func (a *AntiAffinity) validate(p *problems, at func(string) string) {
	if a.Workload != "" {
		p.check(at("workload"), ValidateName("", a.Workload))
	}
	p.labelKey(at("topology"), a.Topology)
}

func (t *Toleration) validate(p *problems, at func(string) string) {
	p.labelKey(at("key"), t.Key)
	p.labelValue(at("value"), t.Value)
	if t.Effect != "" { // any
		p.oneOf(at("effect"), t.Effect, EffectNoSchedule, EffectPreferNoSchedule)
	}
}

// ValidateTaint reports every problem of a taint that an operator gives a node.
func ValidateTaint(field string, t Taint) error {
	p, at := &problems{}, fieldAt(field)
	p.labelKey(at("key"), t.Key)
	p.labelValue(at("value"), t.Value)
	p.oneOf(at("effect"), t.Effect, EffectNoSchedule, EffectPreferNoSchedule)
	return p.join()
}

// Tolerates reports whether the toleration covers the taint. An empty value or
// effect covers every one.
func (t *Toleration) Tolerates(taint Taint) bool {
	return t.Key == taint.Key && (t.Value == "" || t.Value == taint.Value) && (t.Effect == "" || t.Effect == taint.Effect)
}
