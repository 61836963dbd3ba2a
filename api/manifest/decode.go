package manifest

import (
	"errors"
	"reflect"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/cloudless-project/cloudless/api"
)

type metadata struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
}

type workloadDocument struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Metadata   metadata         `json:"metadata"`
	Spec       api.WorkloadSpec `json:"spec"`
}

// laterKinds are the kinds of the manifest language that come with a later version.
var laterKinds = []string{"Secret", "Policy", "Bucket", "Service"}

func (src *source) decode(body ast.Node) (Document, error) {
	if _, ok := resolve(body).(*ast.MappingNode); !ok {
		return Document{}, src.at(positionOf(body), "", api.Invalid("", "a document has the fields apiVersion, kind, metadata and spec, this is something else"))
	}
	if err := src.checkKind(body); err != nil {
		return Document{}, err
	}
	w := workloadDocument{Spec: api.WorkloadSpec{Replicas: api.DefaultReplicas}}
	errs := src.check(body, reflect.TypeOf(w), "")
	if len(errs) > 0 {
		// A field that nobody knows hides nothing of the others. A value that does
		// not parse does: what it should have been is anybody's guess.
		if err := yaml.NodeToValue(body, &w); err != nil {
			return Document{}, errors.Join(errs...)
		}
	} else if err := yaml.NodeToValue(body, &w, yaml.Strict()); err != nil {
		return Document{}, src.fromYAML(err)
	}
	w.Spec.SetDefaults()
	err := errors.Join(
		api.ValidateName("metadata.name", w.Metadata.Name),
		api.ValidateLabels("metadata.labels", w.Metadata.Labels),
		w.Spec.Validate("spec"),
	)
	if err != nil || len(errs) > 0 {
		return Document{}, errors.Join(append(errs, src.locate(body, err))...)
	}
	return Document{Kind: w.Kind, Name: w.Metadata.Name, Labels: w.Metadata.Labels, Workload: &w.Spec, Line: src.skip + positionOf(body).line}, nil
}

// checkKind looks at apiVersion and kind before anything else: of another kind
// nothing would make sense.
func (src *source) checkKind(body ast.Node) error {
	version, at := text(body, "apiVersion")
	if version != Version {
		return src.at(at, "apiVersion", api.Invalid("", "%s is not a version of the manifests", quote(version))).WithHint("write apiVersion: %s", Version)
	}
	kind, at := text(body, "kind")
	if kind == KindWorkload {
		return nil
	}
	for _, later := range laterKinds {
		if kind == later {
			return src.at(at, "kind", api.Errorf(api.KindUnsupported, "kind %s is not supported by this version", kind)).WithHint("this version applies kind: %s", KindWorkload)
		}
	}
	e := src.at(at, "kind", api.Invalid("", "%s is not a kind of thing", quote(kind)))
	if near, ok := nearest(kind, append([]string{KindWorkload}, laterKinds...)); ok {
		return e.WithHint("did you mean %s?", near)
	}
	return e.WithHint("write kind: %s", KindWorkload)
}

// text returns a top-level field's value and where it is, or where it should be.
func text(body ast.Node, name string) (string, position) {
	node, found := lookup(body, name)
	if !found {
		return "", positionOf(body)
	}
	var s string
	if err := yaml.NodeToValue(node, &s); err != nil {
		return "", positionOf(node)
	}
	return s, positionOf(node)
}

func quote(s string) string {
	if s == "" {
		return "nothing"
	}
	return `"` + clip(s) + `"`
}

// locate gives every problem that validation found its place in the file.
func (src *source) locate(body ast.Node, err error) error {
	var out []error
	for _, e := range flatten(err) {
		node, _ := lookup(body, e.Field)
		out = append(out, src.at(positionOf(node), e.Field, e))
	}
	return errors.Join(out...)
}

// flatten returns the *api.Error values that were joined.
func flatten(err error) []*api.Error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*api.Error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	var e *api.Error
	if errors.As(err, &e) {
		return []*api.Error{e}
	}
	return nil
}
