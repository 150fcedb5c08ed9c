// Tests of the verdicts: what counts as passed, failed and skipped, and which lists and reports are refused.

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// twoGroups is a list with one spec of each kind.
const twoGroups = `{"critest": "v0", "groups": [
	{"group": "A", "specs": [{"want": "pass", "spec": "must (work) [Conformance]"}, {"want": "later", "spec": "waits", "reason": "no time"}]},
	{"group": "B [Conformance]", "specs": [{"want": "never", "spec": "cannot", "reason": "no way"}]}
]}`

func listOf(t *testing.T, text string) (list, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "expected.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return readList(path)
}

func mustList(t *testing.T, text string) list {
	t.Helper()
	l, err := listOf(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ranAs is a run in which every spec of twoGroups was skipped but those given.
func ranAs(states map[string]string) critestRun {
	ran := critestRun{specs: map[string]outcome{
		"[k8s.io] A must (work) [Conformance]": {state: "skipped"}, "[k8s.io] A waits": {state: "skipped"},
		"[k8s.io] B [Conformance] cannot": {state: "skipped"},
	}}
	for text, state := range states {
		ran.specs["[k8s.io] "+text] = outcome{state: state, message: "critest's message"}
	}
	return ran
}

// shown judges twoGroups against a run and gives what is printed and whether all was as expected.
func shown(t *testing.T, c choice, ran critestRun) (string, bool) {
	t.Helper()
	var out strings.Builder
	ok := show(&out, judge(mustList(t, twoGroups), c, ran), ran.troubles)
	return out.String(), ok
}

const demanded = "A must (work) [Conformance]"

func TestTheTotalsAreTheLastLine(t *testing.T) {
	out, ok := shown(t, choice{}, ranAs(map[string]string{demanded: "passed"}))
	if !ok || !strings.HasSuffix(out, "\n1 passed, 0 failed, 2 skipped\n") {
		t.Fatalf("ok is %v after %q", ok, out)
	}
	if !strings.Contains(out, "skipped [k8s.io] A waits (later: no time)\n") {
		t.Fatalf("the reason is not told: %q", out)
	}
}

func TestWhatIsDemandedMustPassHoweverItDoesNot(t *testing.T) {
	for _, state := range []string{"failed", "panicked", "timedout", "interrupted", "aborted", "pending", "skipped"} {
		out, ok := shown(t, choice{}, ranAs(map[string]string{demanded: state}))
		if ok || !strings.HasSuffix(out, "\n0 passed, 1 failed, 2 skipped\n") {
			t.Errorf("%s is taken for good: %q", state, out)
		}
	}
}

func TestAFailureOfWhatIsMarkedLaterIsShownAndDoesNotCount(t *testing.T) {
	out, ok := shown(t, choice{later: true}, ranAs(map[string]string{demanded: "passed", "A waits": "failed"}))
	if !ok || !strings.HasSuffix(out, "\n1 passed, 0 failed, 2 skipped\n") || !strings.Contains(out, "critest's message") {
		t.Fatalf("ok is %v after %q", ok, out)
	}
}

func TestWhatPassesBeforeItIsDemandedIsPointedOut(t *testing.T) {
	out, _ := shown(t, choice{later: true}, ranAs(map[string]string{demanded: "passed", "A waits": "passed"}))
	if !strings.Contains(out, "passed  [k8s.io] A waits (marked later: it may be demanded now)") {
		t.Fatal(out)
	}
}

func TestASpecThatTheListDoesNotKnowIsAFailure(t *testing.T) {
	out, ok := shown(t, choice{}, ranAs(map[string]string{demanded: "passed", "C news": "passed"}))
	if ok || !strings.Contains(out, "FAILED  [k8s.io]") || !strings.Contains(out, "C news") {
		t.Fatalf("ok is %v after %q", ok, out)
	}
}

func TestASpecThatCritestDoesNotHaveIsAFailure(t *testing.T) {
	ran := ranAs(map[string]string{demanded: "passed"})
	delete(ran.specs, "[k8s.io] A waits")
	if out, ok := shown(t, choice{}, ran); ok {
		t.Fatal(out)
	}
}

func TestATroubleOfTheWholeRunIsAFailure(t *testing.T) {
	ran := ranAs(map[string]string{demanded: "passed"})
	ran.troubles = []string{"the suite timed out"}
	if out, ok := shown(t, choice{}, ran); ok || !strings.HasSuffix(out, "\n1 passed, 1 failed, 2 skipped\n") {
		t.Fatalf("ok is %v after %q", ok, out)
	}
}

func TestOnlyTheChosenGroupsAreJudged(t *testing.T) {
	out, ok := shown(t, choice{groups: []string{"B"}}, ranAs(nil))
	if !ok || !strings.HasSuffix(out, "\n0 passed, 0 failed, 1 skipped\n") {
		t.Fatalf("ok is %v after %q", ok, out)
	}
}

func TestAGroupThatIsNotThereIsRefused(t *testing.T) {
	l := mustList(t, twoGroups)
	if err := (choice{groups: []string{"A", "Nets"}}).check(l); err == nil || !strings.Contains(err.Error(), "Nets") {
		t.Fatalf("the error is %v", err)
	}
}

func TestAPatternMatchesItsSpecOnly(t *testing.T) {
	for _, s := range mustList(t, twoGroups).specs() {
		pattern := regexp.MustCompile(s.pattern())
		if !pattern.MatchString("CRI validation "+s.text()) || pattern.MatchString("CRI validation "+s.text()+" too") {
			t.Errorf("%s matches something else", s.pattern())
		}
	}
}

func TestAListThatSaysTooMuchOrTooLittleIsRefused(t *testing.T) {
	for flaw, specs := range map[string]string{
		"no reason":     `{"want": "later", "spec": "x"}`,
		"a reason":      `{"want": "pass", "spec": "x", "reason": "y"}`,
		"unknown want":  `{"want": "maybe", "spec": "x", "reason": "y"}`,
		"unknown needs": `{"want": "pass", "spec": "x", "needs": "luck"}`,
		"unknown field": `{"want": "pass", "spec": "x", "flaky": true}`,
		"twice":         `{"want": "pass", "spec": "x"}, {"want": "pass", "spec": "x"}`,
	} {
		if _, err := listOf(t, `{"groups": [{"group": "A", "specs": [`+specs+`]}]}`); err == nil {
			t.Errorf("a list with %s is taken", flaw)
		}
	}
}

func TestADryRunIsNotTakenForARun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(path, []byte(`[{"SuiteConfig": {"DryRun": true}}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"check", "--list", "../expected.json", "--report", path}); err == nil || !strings.Contains(err.Error(), "dry") {
		t.Fatalf("the error is %v", err)
	}
}

func TestAReportIsReadWithTheFailuresAroundTheSpecs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	text := `[{"SpecReports": [
		{"LeafNodeType": "BeforeSuite", "State": "failed", "Failure": {"Message": "no socket"}},
		{"ContainerHierarchyTexts": ["[k8s.io] A", "B"], "LeafNodeType": "It", "LeafNodeText": "c", "State": "failed",
		 "Failure": {"Message": "broke", "Location": {"FileName": "/x/pod.go", "LineNumber": 7}}}]}]`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ran, err := readRun(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := ran.specs["[k8s.io] A B c"]; got.state != "failed" || got.place != "pod.go:7" {
		t.Errorf("the spec is read as %+v", got)
	}
	if len(ran.troubles) != 1 || !strings.Contains(ran.troubles[0], "no socket") {
		t.Errorf("the troubles are %q", ran.troubles)
	}
}

func TestTheReviewedListIsForTheVersionThatIsBuilt(t *testing.T) {
	text, err := os.ReadFile("../expected.json")
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	l := mustList(t, string(text))
	if !strings.Contains(string(module), "sigs.k8s.io/cri-tools "+l.Critest+"\n") {
		t.Fatalf("go.mod does not build cri-tools %s", l.Critest)
	}
}
