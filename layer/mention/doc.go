// Package mention finds the files of an image that a file's bytes name: what a
// program imports, requires, loads or reads next is mostly written in what it has
// read just now. An ELF file names the libraries it needs, a module those it
// imports (as text or in compiled form), a script the commands it runs.
//
// A [Dictionary] knows an image's files by their names; it is immutable and may
// be used concurrently. Find looks at words (runs of letters, digits and what
// joins them to paths and dotted names), not at languages. How likely a mention
// is meant, and not just a word, is told by how much of a file's path it spells
// and by how near the file lies to the one that names it; the figures come from
// traces of Python, Ruby, Perl and Go.
//
// What it says is a guess and needs no trust: it decides when bytes are fetched,
// never which. Its memory is 24 bytes per file and the names of directories;
// Find looks at 256 KiB of a text, and says 4096 mentions of it at most.
package mention
