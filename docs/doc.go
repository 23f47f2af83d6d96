// Package docs is Penstock's documentation. It has no code of its own: its tests
// hold the pages to what is built.
package docs
