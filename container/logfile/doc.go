// Package logfile keeps what a container writes to its standard streams in a
// bounded file of JSON lines, and reads it back.
//
// The writer is a process of its own (Main), started by the container's shim
// and living as long as the container: it neither needs the daemon nor stops
// with it. It never holds the container up for long and never fills the disk:
// at MaxSize the file is renamed to NAME.1, replacing the one before, and what
// cannot be written is dropped.
//
// The reader needs nothing from the writer but the two files. It follows a
// rotation by the identity of the file it has open.
package logfile
