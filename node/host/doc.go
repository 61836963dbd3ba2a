// Package host looks at the machine: what it has, for the inventory, and what
// is not as it should be, for "cloudless doctor".
//
// Everything is read from the kernel's own files, below one fs.FS that stands
// for "/", so that tests bring a machine of their own. Nothing here changes
// anything, and a file that is not there is no error: what cannot be seen is
// unknown, never guessed.
package host
