// Package manifest reads what users write: YAML or JSON, one or several
// documents, each an apiVersion, a kind, metadata and a spec.
//
// Decode refuses what it does not know, so that a typing error never becomes a
// silent default, and it says where: every error is an *api.Error whose message
// starts with file:line:column, and Snippet shows the line with a caret.
//
// Input is hostile until it has passed the gate: at most 1 MiB, no deep
// nesting, no alias bombs. The gate is go.yaml.in/yaml, which refuses those in
// milliseconds; goccy/go-yaml, which knows the column of everything, sees only
// what has passed.
package manifest
