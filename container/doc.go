// Package container says what Cloudless needs of a container runtime, in the
// words of the node agent: content by digest, images, containers, exits, logs.
//
// # What an implementation promises
//
//   - Every verb is idempotent: repeating it after a lost answer, or after a
//     restart of the daemon, is safe and ends in the same state. Create on an
//     existing container with an equal Spec, Stage on a staged one, Start on a running one, Stop on a
//     stopped one and Remove on a missing one all succeed.
//   - Containers outlive the daemon and the runtime's own process. What runs is
//     found again by List, and how it ended by Status and Exits.
//   - Exits delivers at least once: it begins with every container that stands
//     stopped, then follows. The outcome of a run is kept until Start or Remove.
//   - Content is verified against its digest before it can be seen, and is kept
//     until an image names it or UnclaimedFor has passed.
//   - A container gets nothing that its Spec does not name: no capability, no
//     new privileges, no network, no writable root, no label of its image.
//
// # What the caller must do
//
//   - Bring the image first (WriteBlob and RegisterImage, or Pull), then Unpack,
//     then Create: Create never fetches.
//   - Remove containers that are not wanted any more, stopped ones too: their
//     outcome, their log and their writable layer are kept until then.
//   - Read Exits all the time; an unread channel holds up the events behind it.
//
// Errors meant for people are *api.Error: KindNotFound for an unknown container,
// image or blob, KindInvalid for a Spec that cannot run, KindExists for a
// container of that ID with another Spec, KindUnsupported for what this host
// cannot do, KindUnavailable while the runtime does not answer.
//
// container/containerd implements Runtime on containerd, container/fake in
// memory; container/containertest is the suite that both must pass.
package container
