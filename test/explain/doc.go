// Package explain asks: does peel tell the truth about its reads? What a trace
// has must be the reads that were made, what peel explain says of a mount must be
// what peel ps says and what a proxy has seen, and its advice must help.
package explain
