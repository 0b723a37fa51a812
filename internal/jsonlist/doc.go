// Package jsonlist decodes lists of foreign JSON documents within limits.
//
// An element costs two bytes of input and may cost hundreds of memory, hence
// one by one. What is longer than its limit is an error, and of no class: the
// caller knows the object. The functions are pure.
package jsonlist
