// Package priority says how urgent a fetch is, by way of its context: whoever
// shares something among fetches (a host, memory, processors) asks for it. A
// fetch becomes more urgent when somebody turns out to wait for it, never less.
package priority
