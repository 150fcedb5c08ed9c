// The program report holds a run of critest against the reviewed list expected.json. It starts nothing: the script run does.
//
//	report focus  --list FILE [--groups A,B] [--later] [--handler H]                  prints the flags that make critest run just those specs
//	report check  --list FILE --report FILE [--groups A,B] [--later] [--handler H]    prints one line a spec and the totals; fails when not as expected
//	report audit  --list FILE --report FILE                             compares the list with the specs that critest has
//
// See README.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

const usage = "usage: report focus|check|audit [flags]; report check -h lists the flags"

func main() {
	switch err := run(os.Args[1:]); {
	case errors.Is(err, errUnexpected):
		os.Exit(1) // the verdicts have said it all, and the totals stay the last line
	case err != nil:
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
}

var errUnexpected = errors.New("the run was not as expected")

type options struct {
	list, report string
	choice       choice
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	o, err := parse(args[0], args[1:])
	if err != nil {
		return err
	}
	l, err := readList(o.list)
	if err != nil {
		return err
	}
	if err := o.choice.check(l); err != nil {
		return err
	}
	switch args[0] {
	case "focus":
		return focus(l, o.choice)
	case "check":
		return check(l, o)
	case "audit":
		return audit(l, o)
	default:
		return fmt.Errorf("%q is no command; %s", args[0], usage)
	}
}

func parse(command string, args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	flags.StringVar(&o.list, "list", "", "the reviewed list")
	flags.StringVar(&o.report, "report", "", "critest's JSON report")
	flags.BoolVar(&o.choice.later, "later", false, "also the specs that are marked later")
	flags.StringVar(&o.choice.handler, "handler", "", "the handler of the pods; it may have exceptions")
	groups := flags.String("groups", "", "groups, separated by commas; empty means all")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *groups != "" {
		o.choice.groups = strings.Split(*groups, ",")
	}
	return o, nil
}

func focus(l list, c choice) error {
	var chosen bool
	for _, s := range l.specs() {
		if c.runs(s) {
			chosen = true
			fmt.Println("-ginkgo.focus=" + s.pattern())
		}
	}
	if !chosen {
		return errors.New("no spec is left to run: choose other groups, or --later")
	}
	return nil
}

func check(l list, o options) error {
	ran, err := readRun(o.report)
	if err != nil {
		return err
	}
	if ran.dry {
		return fmt.Errorf("%s is of a dry run, which runs nothing", o.report)
	}
	verdicts := judge(l, o.choice, ran)
	if !show(os.Stdout, verdicts, ran.troubles) {
		return errUnexpected
	}
	return nil
}

func audit(l list, o options) error {
	ran, err := readRun(o.report)
	if err != nil {
		return err
	}
	var wrong []error
	for _, v := range judge(l, choice{later: true}, ran) {
		if v.unlisted || v.absent {
			wrong = append(wrong, fmt.Errorf("%s: %s", v.spec.text(), v.why))
		}
	}
	return errors.Join(wrong...)
}
