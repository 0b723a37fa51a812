// Package cold asks: how long does a container take to start and do its work
// when nothing of its image is here, how many bytes does that fetch, and how
// far is it from what the line allows?
package cold
