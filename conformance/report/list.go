// The reviewed list: every spec of critest and what is expected of it. What a spec may be is told here; how a run compares is not.

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// list is expected.json.
type list struct {
	Critest string  `json:"critest"` // the version that has these specs
	Groups  []group `json:"groups"`
}

type group struct {
	Name  string `json:"group"`
	Specs []spec `json:"specs"`
}

type spec struct {
	Want   want   `json:"want"`
	Spec   string `json:"spec"`            // its text as critest prints it, after the group
	Reason string `json:"reason"`          // why it is not demanded; empty for what is
	Needs  string `json:"needs,omitempty"` // a feature of the host, see hosts; without it the spec is skipped
	// Handlers that cannot do it, each with the reason; with them the spec is skipped.
	NotBy map[string]string `json:"notBy,omitempty"`
	group string
}

type want string

const (
	pass  want = "pass"  // is run and must pass
	later want = "later" // not run unless asked for; its failing counts only in sight
	never want = "never" // cannot be run
)

func readList(path string) (list, error) {
	var l list
	text, err := os.ReadFile(path)
	if err != nil {
		return l, fmt.Errorf("cannot read the reviewed list: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&l); err != nil {
		return l, fmt.Errorf("%s is no reviewed list: %w", path, err)
	}
	if err := l.check(); err != nil {
		return l, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

func (l list) specs() []spec {
	var all []spec
	for _, g := range l.Groups {
		for _, s := range g.Specs {
			s.group = g.Name
			all = append(all, s)
		}
	}
	return all
}

func (l list) check() error {
	seen := map[string]bool{}
	for _, s := range l.specs() {
		if err := s.check(); err != nil {
			return fmt.Errorf("%q: %w", s.text(), err)
		}
		if seen[s.text()] {
			return fmt.Errorf("%q is listed twice", s.text())
		}
		seen[s.text()] = true
	}
	return nil
}

func (s spec) check() error {
	_, known := hosts[s.Needs]
	switch {
	case !slices.Contains([]want{pass, later, never}, s.Want):
		return fmt.Errorf("want is %q: it must be pass, later or never", s.Want)
	case s.Want == pass && s.Reason != "":
		return fmt.Errorf("what must pass needs no reason")
	case s.Want != pass && s.Reason == "":
		return fmt.Errorf("has no reason for not being demanded")
	case slices.Contains(slices.Collect(maps.Values(s.NotBy)), ""):
		return fmt.Errorf("has a handler in notBy without a reason")
	case s.Needs != "" && !known:
		return fmt.Errorf("needs %q, which nobody knows how to look for: add it to hosts", s.Needs)
	}
	return nil
}

func (s spec) text() string {
	return "[k8s.io] " + s.group + " " + s.Spec
}

// pattern matches this spec only. critest matches it against the name of the suite, a space and the text.
func (s spec) pattern() string {
	return "^CRI validation " + regexp.QuoteMeta(s.text()) + "$"
}

// choice is what someone wants to run.
type choice struct {
	groups  []string // none: all
	later   bool
	handler string // empty: the runtime's default, which has no exceptions
}

func (c choice) check(l list) error {
	var known []string
	for _, g := range l.Groups {
		known = append(known, short(g.Name))
	}
	for _, name := range c.groups {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no group %q; there are: %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

func (c choice) covers(s spec) bool {
	return len(c.groups) == 0 || slices.Contains(c.groups, short(s.group))
}

// short is a group's name as one asks for it.
func short(group string) string {
	return strings.TrimSuffix(group, " [Conformance]")
}

// lacks says why the spec cannot be run here, or nothing.
func (c choice) lacks(s spec) string {
	if why, listed := s.NotBy[c.handler]; listed {
		return why
	}
	return s.lacks()
}

func (c choice) runs(s spec) bool {
	return c.covers(s) && c.lacks(s) == "" && (s.Want == pass || c.later && s.Want == later)
}
