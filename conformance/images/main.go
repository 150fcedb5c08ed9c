// The program images builds the images that critest names, from a busybox, nginx and two small programs that setup has prepared,
// and serves them from a registry on loopback. It pulls nothing, and it is no registry itself: that is Debian's docker-registry.
//
//	images build --out DIR --busybox FILE --programs DIR --packages DIR
//	images serve --images DIR --storage DIR --certs-dir DIR [--registry PROGRAM] [--port N]
//
// See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = "usage: images build|serve [flags]; images build -h lists the flags"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf(usage)
	}
	switch args[0] {
	case "build":
		return build(args[1:])
	case "serve":
		return serve(ctx, args[1:])
	default:
		return fmt.Errorf("%q is no command; %s", args[0], usage)
	}
}

func build(args []string) error {
	flags := flag.NewFlagSet("build", flag.ExitOnError)
	out := flags.String("out", "", "directory of the images, in the OCI image layout")
	var p parts
	flags.StringVar(&p.busybox, "busybox", "", "a statically linked busybox")
	flags.StringVar(&p.programs, "programs", "", "directory with the programs pause and nonewprivs")
	flags.StringVar(&p.packages, "packages", "", "root directory of the unpacked packages of nginx and its libraries")
	if err := parse(flags, args); err != nil {
		return err
	}
	return buildImages(p, *out)
}

// parse demands every flag that has no default of its own.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	var missing error
	flags.VisitAll(func(f *flag.Flag) {
		if f.Value.String() == "" {
			missing = fmt.Errorf("--%s is not given: %s", f.Name, f.Usage)
		}
	})
	return missing
}

func buildImages(p parts, out string) error {
	packed, err := p.pack()
	if err != nil {
		return err
	}
	all, err := catalogue(packed)
	if err != nil {
		return err
	}
	s, err := newStore(out)
	if err != nil {
		return err
	}
	for _, n := range all {
		top, err := n.image.put(s)
		if err != nil {
			return fmt.Errorf("cannot build %s: %w", n.references[0], err)
		}
		for _, reference := range n.references {
			s.name(reference, top)
		}
	}
	return s.close()
}
