package place

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// rule allows a replica on a node or not, and can say why not.
type rule interface {
	allows(node int32) bool
	fault(node int32) fault // only of a node that is not allowed
}

// fault says why a node is out: for one node and for many in a summary, and in
// full for a person who asks about this node.
type fault struct{ one, many, detail string }

// fits demands that there is room. Bandwidth is measured and may turn out to be
// less than is reserved: what asks for none does not mind.
type fits struct {
	free  []api.Resources
	needs api.Resources
}

func (r *fits) allows(node int32) bool {
	free := &r.free[node]
	return r.needs.CPU <= free.CPU && r.needs.Memory <= free.Memory && r.needs.Storage <= free.Storage &&
		(r.needs.Bandwidth == 0 || r.needs.Bandwidth <= free.Bandwidth)
}

func (r *fits) fault(node int32) fault {
	free, lacks, details := r.free[node], []string(nil), []string(nil)
	lack := func(what string, short bool, needs, has string) {
		if short {
			lacks = append(lacks, what)
			details = append(details, fmt.Sprintf("needs %s of %s, has %s free", needs, what, has))
		}
	}
	lack("cpu", r.needs.CPU > free.CPU, r.needs.CPU.String(), max(free.CPU, 0).String())
	lack("memory", r.needs.Memory > free.Memory, size(r.needs.Memory), size(free.Memory))
	lack("storage", r.needs.Storage > free.Storage, size(r.needs.Storage), size(free.Storage))
	lack("bandwidth", r.needs.Bandwidth > max(free.Bandwidth, 0), r.needs.Bandwidth.String(), max(free.Bandwidth, 0).String())
	names := strings.Join(lacks, " and ")
	return fault{"lacks " + names, "lack " + names, strings.Join(details, "; ")}
}

// size prints an amount for a person to compare: "512 MiB".
func size(b api.Bytes) string {
	b = max(b, 0)
	for _, u := range []struct {
		name string
		of   api.Bytes
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b >= 10*u.of || b >= u.of && b%u.of == 0 {
			return fmt.Sprintf("%d %s", b/u.of, u.name)
		}
		if b >= u.of {
			return fmt.Sprintf("%.1f %s", float64(b)/float64(u.of), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", b)
}

// labelRule compares a label.
type labelRule struct {
	column *column
	good   []bool // by the column's number
	want   string
}

// affinity compiles an affinity of a spec.
func (f *Fleet) affinity(a api.Affinity) *labelRule {
	col := f.column(a.Key)
	r := &labelRule{column: col, good: make([]bool, len(col.values)), want: strings.TrimSpace(a.Key + " " + a.Operator + " " + strings.Join(a.Values, ", "))}
	for id, value := range col.values {
		there := id != 0
		switch a.Operator {
		case api.OpIn:
			r.good[id] = there && slices.Contains(a.Values, value)
		case api.OpNotIn:
			r.good[id] = !there || !slices.Contains(a.Values, value)
		case api.OpExists:
			r.good[id] = there
		case api.OpDoesNotExist:
			r.good[id] = !there
		}
	}
	return r
}

func (r *labelRule) allows(node int32) bool { return r.good[r.column.of[node]] }

func (r *labelRule) fault(node int32) fault {
	has := "the node has no such label"
	if id := r.column.of[node]; id != 0 {
		has = "the node has " + r.column.values[id]
	}
	return fault{"has not " + r.want, "have not " + r.want, "wants " + r.want + ", " + has}
}

// archRule demands an architecture that the image is built for.
func (f *Fleet) archRule(platforms []string) *labelRule {
	var values []string
	for _, p := range platforms {
		if parts := strings.Split(p, "/"); len(parts) >= 2 { // os/arch[/variant]
			values = append(values, parts[1])
		}
	}
	r := f.affinity(api.Affinity{Key: "arch", Operator: api.OpIn, Values: values})
	r.want = "an image for " + strings.Join(values, " or ")
	return r
}

// apart keeps a replica out of a topology's domain where another workload (or
// its own) has replicas.
type apart struct {
	counter  *counter
	topology string
	from     string
}

func (r *apart) allows(node int32) bool {
	if r.counter.column.of[node] == 0 {
		return true // whoever says nothing of its zone shares it with nobody
	}
	return r.counter.at(node) == 0
}

func (r *apart) fault(node int32) fault {
	where := "has"
	if r.topology != api.TopologyNode {
		where = fmt.Sprintf("is in %s %s, which has", r.topology, r.counter.column.values[r.counter.column.of[node]])
	}
	return fault{"is too near to " + r.from, "are too near to " + r.from,
		fmt.Sprintf("%s %d of %s already", where, r.counter.at(node), r.from)}
}

// held wishes for a node that has the image.
type held struct{ holds []bool }

func (r *held) allows(node int32) bool { return r.holds[node] }

func (r *held) fault(int32) fault { return fault{detail: "the image is not there"} }
