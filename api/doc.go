// Package api holds the nouns of Cloudless as plain Go values: nodes, tokens,
// workloads, replicas, services, images and events, with their validation and
// the kinds of error that every layer speaks.
//
// It performs no I/O and imports nothing of Cloudless. Values are data: copy
// them freely, and treat a value that came out of a state view as read-only.
// JSON tags are the contract of the command line (snake_case); the manifest
// types (WorkloadSpec and what it contains) use the camelCase of the manifests.
package api
