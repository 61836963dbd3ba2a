package manifest

import (
	"errors"
	"io"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/cloudless-project/cloudless/api"
)

// Version is the apiVersion of every manifest.
const Version = "cloudless/v1"

// KindWorkload is the one kind that this version applies.
const KindWorkload = "Workload"

// Document is one thing that a manifest asks for, with its defaults set and
// validated.
type Document struct {
	Kind     string
	Name     string
	Labels   map[string]string
	Workload *api.WorkloadSpec // set when Kind is KindWorkload
	Line     int               // where the document starts
}

// Decode reads all documents of a manifest. The filename is for messages only;
// "-" and "" are shown as "stdin". The error joins one *api.Error for each
// problem of each document.
func Decode(r io.Reader, filename string) ([]Document, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "%w", err) // names the file
	}
	src := newSource(filename, data)
	count, err := src.gate()
	if err != nil {
		return nil, err
	}
	return src.decodeAll(count)
}

// decodeAll reads the documents, of which the gate has counted so many.
func (src *source) decodeAll(count int) ([]Document, error) {
	var docs []Document
	var errs []error
	seen := map[string]int{}
	found := 0
	for _, part := range src.split() {
		body, err := part.parse()
		if err != nil {
			return nil, err
		}
		if body == nil {
			continue
		}
		found++
		doc, err := part.decode(body)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if line, ok := seen[doc.Name]; ok {
			errs = append(errs, part.at(positionOf(body), "metadata.name",
				api.Invalid("", "workload %s is in this file twice, first in line %d", doc.Name, line)))
		}
		seen[doc.Name] = doc.Line
		docs = append(docs, doc)
	}
	switch {
	case len(errs) > 0:
		return nil, errors.Join(errs...)
	case found != count:
		// The two parsers do not agree on what is there. Better none than a part.
		return nil, api.Errorf(api.KindInvalid, "%s: the documents cannot be told apart", src.name).
			WithHint("put --- on a line of its own between documents, and leave directives out")
	case count == 0:
		return nil, api.Errorf(api.KindInvalid, "%s: there is no document in it", src.name)
	}
	return docs, nil
}

// parse returns the root of the document in this part of the source, nil when
// there are only comments.
func (src *source) parse() (ast.Node, error) {
	file, err := parser.ParseBytes(src.part, 0)
	if err != nil {
		return nil, src.fromYAML(err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch doc.Body.(type) {
		case nil, *ast.NullNode, *ast.CommentGroupNode:
		default:
			body = doc.Body
		}
	}
	return body, nil
}
