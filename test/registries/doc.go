// Package registries asks: does everything that peel does with a registry work
// against the registries there are, does a mount keep reading while tokens and
// URLs expire and mirrors die, and does no secret reach anybody it is not for?
package registries
