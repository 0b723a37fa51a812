// Package sharing asks: can several processes use one cache at the same time,
// and do different caches know nothing of each other?
package sharing
