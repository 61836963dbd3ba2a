// Package architecture holds the test that keeps the picture in
// docs/architecture.md true: who may import whom, which package owns which
// dependency, and what the pure packages do without. It contains no code of the
// product.
//
// A rule says why it exists, and a violation prints that sentence: whoever
// meets it should be able to tell a mistake from a rule that has to change.
package architecture
