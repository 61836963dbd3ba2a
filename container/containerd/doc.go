// Package containerd implements container.Runtime on containerd.
//
// It speaks to containerd's socket only and keeps no state of its own: what it
// must remember of a container stands in labels of containerd's record (a
// fingerprint of the Spec, start and end of the last run, the stop signal), and a
// finished task is kept until Start or Remove, so that its exit code is still
// there for a daemon that was away. Everything lives in one containerd
// namespace, beside which other users of the same containerd stay untouched.
//
// Three processes stand beside a container: its shim, which is containerd's,
// its log writer (package logfile, in the daemon's own binary), and itself.
// None of them needs the daemon or containerd to go on.
//
// # Traps that the code steps around
//
//   - Labels of an image never become labels of a container: containerd's
//     restart monitor would run a binary that one of them names.
//   - containerd is dialled lazily and again and again: New succeeds while it is
//     down, calls then fail with KindUnavailable until it answers.
//   - Events of containerd are hints, not facts: they get lost when it restarts.
//     The truth is asked for after each one, after each reconnection, and now
//     and then.
//   - containerd 1.7 and later drop finished tasks when they start. An exit that
//     Exits has seen stands in a label by then; one that happened while
//     containerd itself was away is told of as lost.
//   - The memory cgroup outlives the process until the task is deleted; its
//     count of kills tells an OOM kill from another SIGKILL, also later.
//   - runc's state is kept apart for each node (StateDir), or two nodes on one
//     host would collide on equal container IDs.
//
// Package supervise finds or runs the containerd to speak to.
package containerd
