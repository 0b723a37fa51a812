// Package profile asks whether what one mount has read makes the next one
// quicker: on this machine, and on others by way of the registry.
package profile
