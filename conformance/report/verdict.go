// Comparing a run with the list, spec by spec, and printing what came of it.

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

type verdict struct {
	spec     spec
	ruling   ruling
	why      string // one line
	details  string // what critest said of a failure
	took     time.Duration
	unlisted bool // critest has it, the list has not
	absent   bool // the list has it, critest has not
}

type ruling int

const (
	passed ruling = iota
	failed
	skipped
)

// judge gives a verdict on each spec of the chosen groups, in the order of the list, and on each that the list does not know.
func judge(l list, c choice, ran critestRun) []verdict {
	var all []verdict
	unknown := maps.Clone(ran.specs)
	for _, s := range l.specs() {
		o, there := ran.specs[s.text()]
		delete(unknown, s.text())
		if c.covers(s) {
			all = append(all, judgeOne(s, c, o, there))
		}
	}
	for _, text := range slices.Sorted(maps.Keys(unknown)) {
		if !isBenchmark(text) {
			all = append(all, judgeUnlisted(text))
		}
	}
	return all
}

// isBenchmark tells the specs that measure from those that validate; critest runs the one kind or the other, by the same word.
func isBenchmark(text string) bool {
	return strings.Contains(text, "benchmark")
}

func judgeUnlisted(text string) verdict {
	s := spec{Spec: strings.TrimPrefix(text, "[k8s.io] ")}
	return verdict{spec: s, ruling: failed, unlisted: true, why: "is not in the reviewed list: add it"}
}

func judgeOne(s spec, c choice, o outcome, there bool) verdict {
	v := verdict{spec: s, took: o.took}
	switch {
	case c.lacks(s) != "":
		v.ruling, v.why = skipped, c.lacks(s)
	case !there:
		v.ruling, v.absent, v.why = failed, true, "critest has no such spec: take it off the list"
	case s.Want == never || s.Want == later && !c.later:
		v.ruling, v.why = skipped, string(s.Want)+": "+s.Reason
	case s.Want == later:
		v.judgeEarly(o)
	default:
		v.judgeDemanded(o)
	}
	return v
}

// judgeEarly is for specs marked later that were run all the same, to see which may be demanded now.
func (v *verdict) judgeEarly(o outcome) {
	if o.state == "passed" {
		v.ruling, v.why = passed, "marked later: it may be demanded now"
		return
	}
	v.ruling, v.why, v.details = skipped, o.state+", marked later: "+v.spec.Reason, o.details()
}

func (v *verdict) judgeDemanded(o outcome) {
	switch o.state {
	case "passed":
		v.ruling = passed
	case "skipped":
		v.ruling, v.why = failed, "was skipped, and must pass: "+oneLine(o.message)
	default:
		v.ruling, v.why, v.details = failed, o.state+": "+oneLine(o.message), o.details()
	}
}

func (o outcome) details() string {
	if o.message == "" {
		return ""
	}
	return o.place + "\n" + o.message
}

const longestLine = 200

// oneLine is the beginning of a message. Its first line alone is often just "Unexpected error:".
func oneLine(message string) string {
	text := []rune(strings.Join(strings.Fields(message), " "))
	switch {
	case len(text) == 0:
		return "critest gives no reason"
	case len(text) > longestLine:
		return string(text[:longestLine]) + "..."
	}
	return string(text)
}

// show writes one line a spec, then what critest said of the failures, then the totals as the last line. It says whether all is
// as expected.
func show(out io.Writer, verdicts []verdict, troubles []string) bool {
	var counts [3]int
	for _, v := range verdicts {
		counts[v.ruling]++
		fmt.Fprintln(out, v.line())
	}
	for _, v := range verdicts {
		if v.details != "" {
			fmt.Fprintf(out, "\n%s\n%s\n", v.spec.text(), indent(v.details))
		}
	}
	for _, trouble := range troubles {
		fmt.Fprintf(out, "\nThe run as a whole:\n%s\n", indent(trouble))
	}
	if len(troubles) > 0 && counts[failed] == 0 {
		counts[failed] = 1
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", counts[passed], counts[failed], counts[skipped])
	return counts[failed] == 0
}

func (v verdict) line() string {
	word := [...]string{"passed ", "FAILED ", "skipped"}[v.ruling]
	line := word + " " + v.spec.text()
	if v.took > 0 {
		line += fmt.Sprintf(" [%.1f s]", v.took.Seconds())
	}
	if v.why != "" {
		line += " (" + v.why + ")"
	}
	return line
}

const mostLines = 20

func indent(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > mostLines {
		lines = append(lines[:mostLines], "... the rest is in critest's log")
	}
	return "    " + strings.Join(lines, "\n    ")
}
