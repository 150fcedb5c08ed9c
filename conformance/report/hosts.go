// Features of the host that some specs stand on, and how to see whether they are there. critest itself decides by the same files.

package main

import (
	"os"
	"strings"
)

type feature struct {
	file, content string
	lack          string // what to say when the file does not have the content
}

var hosts = map[string]feature{
	"apparmor": {"/sys/module/apparmor/parameters/enabled", "Y", "the host has no AppArmor"},
	"selinux":  {"/proc/self/mounts", " selinuxfs ", "the host has no SELinux"},
}

// lacks says what the host has not that the spec needs, or nothing.
func (s spec) lacks() string {
	f, named := hosts[s.Needs]
	if !named {
		return ""
	}
	text, err := os.ReadFile(f.file)
	if err == nil && strings.Contains(string(text), f.content) {
		return ""
	}
	return f.lack
}
