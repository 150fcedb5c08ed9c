// Reading critest's report, the JSON that the test framework Ginkgo writes. Only the few fields that a verdict rests on.

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// outcome is how critest says that one spec went.
type outcome struct {
	state   string // Ginkgo's word: passed, skipped, failed, panicked, timedout, interrupted, aborted, pending
	message string // of the failure, or of the spec that skipped itself
	place   string // where in critest's source that was
	took    time.Duration
}

func (o outcome) failed() bool {
	return o.state != "passed" && o.state != "skipped"
}

type critestRun struct {
	specs    map[string]outcome // by full text
	troubles []string           // of the run as a whole
	dry      bool               // nothing was run: all specs are told as passed
}

type suiteReport struct {
	SuiteConfig                struct{ DryRun bool }
	SpecialSuiteFailureReasons []string
	SpecReports                []specReport
}

type specReport struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	RunTime                 time.Duration
	Failure                 failure
}

type failure struct {
	Message  string
	Location struct {
		FileName   string
		LineNumber int
	}
}

func readRun(path string) (critestRun, error) {
	var suites []suiteReport
	text, err := os.ReadFile(path)
	if err != nil {
		return critestRun{}, fmt.Errorf("critest left no report, so it did not come to its end: %w", err)
	}
	if err := json.Unmarshal(text, &suites); err != nil {
		return critestRun{}, fmt.Errorf("%s is no report of critest: %w", path, err)
	}
	ran := critestRun{specs: map[string]outcome{}}
	for _, suite := range suites {
		ran.add(suite)
	}
	return ran, nil
}

func (r *critestRun) add(suite suiteReport) {
	r.dry = r.dry || suite.SuiteConfig.DryRun
	r.troubles = append(r.troubles, suite.SpecialSuiteFailureReasons...)
	for _, s := range suite.SpecReports {
		o := outcome{state: s.State, message: s.Failure.Message, place: s.Failure.place(), took: s.RunTime}
		switch {
		case s.LeafNodeType == "It":
			r.specs[s.text()] = o
		case o.failed():
			r.troubles = append(r.troubles, s.LeafNodeType+" "+s.State+": "+o.message)
		}
	}
}

func (f failure) place() string {
	if f.Location.FileName == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", filepath.Base(f.Location.FileName), f.Location.LineNumber)
}

func (s specReport) text() string {
	return strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
}
